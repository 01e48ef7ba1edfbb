"""What routes take as arguments: the process's parts, and who is calling.

All of them are coroutines, also those that await nothing: FastAPI sends any other function to a thread, which costs a
request more than all that these do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import Depends, Header, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.memories import LazyMemories
from app.api.problems import ProblemError
from app.infra.auth import Authenticator, Caller
from app.infra.ids import ID_PATTERN, RunId, ThreadId, UserId
from app.infra.keys import Keys
from app.infra.settings import Settings
from app.runs.administration.desk import Administration
from app.runs.events import START, is_event_id
from app.runs.hub import EventHub
from app.runs.ledger import RunLedger
from app.runs.schedule.crons import Crons
from app.runs.schedule.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Api:
    """The parts of an api process, opened in its lifespan."""

    settings: Settings
    redis: Any
    keys: Keys
    authenticator: Authenticator
    ledger: RunLedger
    hub: EventHub
    memories: LazyMemories
    crons: Crons
    scheduler: Scheduler
    graphs: tuple[str, ...]
    """Names of the registered graphs."""


async def _api(request: Request) -> Api:
    found: Api = request.app.state.api
    return found


Parts = Annotated[Api, Depends(_api)]

_bearer = HTTPBearer(auto_error=False, description="An API key, `slw_<id>_<secret>`.")


async def _caller(
    api: Parts,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    x_user_id: Annotated[
        str | None,
        Header(pattern=ID_PATTERN, description="The end user that this request acts for; default: the key's own."),
    ] = None,
) -> Caller:
    challenge = {"WWW-Authenticate": 'Bearer realm="slipway"'}
    if credentials is None:
        raise ProblemError(
            401, "no-key", "send `Authorization: Bearer <API key>`; `pulumi up` made one", headers=challenge
        )
    caller = await api.authenticator.caller(credentials.credentials)
    if caller is None:
        raise ProblemError(
            401, "wrong-key", "this API key is not known here; check it, or make a new one", headers=challenge
        )
    structlog.contextvars.bind_contextvars(tenant=caller.tenant, key_id=caller.key_id)
    if x_user_id is not None:
        return Caller(caller.key_id, caller.tenant, UserId(x_user_id), caller.scopes)
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]


async def _admin(caller: CallerDep) -> Caller:
    if not ADMIN_SCOPES & caller.scopes:
        raise ProblemError(403, "admin-only", "this API key lacks the scope `admin`; use a key that has it")
    return caller


ADMIN_SCOPES = frozenset({"admin", "*"})
AdminDep = Annotated[Caller, Depends(_admin)]
"""Who is calling, with a key that may administer its tenant."""


async def _administration(api: Parts) -> Administration:
    return Administration(api.redis, api.keys, api.ledger)


AdministrationDep = Annotated[Administration, Depends(_administration)]


async def _run_id(run_id: Annotated[str, Path(pattern=ID_PATTERN)]) -> RunId:
    return RunId(run_id)


async def _thread_id(thread_id: Annotated[str, Path(pattern=ID_PATTERN)]) -> ThreadId:
    return ThreadId(thread_id)


RunIdPath = Annotated[RunId, Depends(_run_id)]
ThreadIdPath = Annotated[ThreadId, Depends(_thread_id)]


async def _after(
    last_event_id: Annotated[
        str | None, Header(description="Id of the last event received: the stream goes on right after it.")
    ] = None,
) -> str:
    if last_event_id is None or last_event_id == "":
        return START
    if not is_event_id(last_event_id):
        raise ProblemError(
            400,
            "malformed-event-id",
            "Last-Event-ID must be the `id:` of an event of this stream, such as 1718000000000-0",
        )
    return last_event_id


After = Annotated[str, Depends(_after)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Makes repeating the request safe: the same key gives the same run, once.",
    ),
]
