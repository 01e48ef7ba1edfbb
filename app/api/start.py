"""Starting a run and waiting for it: what `/chat`, `/chat/async` and `/api/stream` have in common."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.api.dependencies import Api
from app.api.problems import ProblemError, request_id
from app.infra import telemetry
from app.infra.auth import Caller
from app.infra.errors import RedisUnavailable
from app.infra.ids import ID_PATTERN, RunId, ThreadId, new_id
from app.runs.model import Accepted, NewRun

_LOOK_AGAIN_SECONDS = 0.5


class ChatRequest(BaseModel):
    """A message for the agent; the body of every way to start a run."""

    model_config = ConfigDict(extra="forbid", strict=True)

    message: Annotated[str, Field(min_length=1, description="What the user says.")]
    thread_id: Annotated[
        str | None, Field(pattern=ID_PATTERN, description="The conversation to go on with; left out, a new one begins.")
    ] = None
    graph: Annotated[str | None, Field(description="Which registered graph answers; default: DEFAULT_GRAPH.")] = None

    @field_validator("message")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must say something")
        return value


async def start(
    api: Api, caller: Caller, asked: ChatRequest, idempotency_key: str | None, run_id: RunId | None = None
) -> Accepted:
    """Write the run down, as `run_id` if one is given; when this returns, it will be executed."""
    service = api.settings.service
    if len(asked.message) > service.max_message_chars:
        raise ProblemError(
            422,
            "message-too-long",
            f"message: has {len(asked.message)} characters, at most {service.max_message_chars} are taken",
        )
    graph = asked.graph or service.default_graph
    if graph not in api.graphs:
        raise ProblemError(422, "unknown-graph", f"graph: use one of {', '.join(api.graphs)}")
    digest = hashlib.sha256(orjson.dumps([caller.user, asked.message, asked.thread_id, graph])).hexdigest()
    accepted = await api.ledger.accept(
        NewRun(
            run_id=run_id or RunId(new_id()),
            thread_id=ThreadId(asked.thread_id) if asked.thread_id else None,
            tenant=caller.tenant,
            user=caller.user,
            graph=graph,
            input={"messages": [{"role": "user", "content": asked.message}]},
            request_id=request_id(),
            traceparent=telemetry.carry(),
            idempotency_key=idempotency_key or "",
            digest=digest,
        )
    )
    if accepted.created:
        telemetry.runs_accepted.add(1, {"graph": graph})
    return accepted


async def answer(
    api: Api, caller: Caller, asked: ChatRequest, idempotency_key: str | None
) -> tuple[RunId, dict[str, Any] | None]:
    """Start a run and wait for its result; None when CHAT_TIMEOUT_SECONDS or the process ends before the run."""
    run_id = RunId(new_id())
    with api.hub.end_of(run_id) as end:
        accepted = await start(api, caller, asked, idempotency_key, run_id)
        if accepted.run_id == run_id:
            return run_id, await _result(api, run_id, end)
    with api.hub.end_of(accepted.run_id) as end:
        end.set()  # an earlier request started it: it may have ended long ago
        return accepted.run_id, await _result(api, accepted.run_id, end)


async def _result(api: Api, run_id: RunId, end: asyncio.Event) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(api.settings.service.chat_timeout_seconds):
            while True:
                await end.wait()
                end.clear()
                try:
                    result = await api.ledger.result(run_id)
                except RedisUnavailable:
                    end.set()  # the run is safe: look again until the time is up
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
                    continue
                if result is not None or api.hub.leaving:
                    return result
    except TimeoutError:
        return None


_PROBLEMS = {
    "timeout": (504, "run-timeout", "the run took longer than RUN_TIMEOUT_SECONDS; ask for less, or raise it"),
    "cancelled": (409, "run-cancelled", "the run was cancelled; start a new one"),
    "dependency_unavailable": (502, "dependency-unavailable", "the model or another service did not answer; try again"),
    "internal": (500, "run-failed", "the run failed; report its id to whoever runs the service"),
    "attempts_exhausted": (500, "attempts-exhausted", "every allowed attempt of the run was cut off; report its id"),
    "graph_unknown": (500, "graph-unknown", "the workers of this release do not have that graph; deploy them again"),
}


def refuse_failed(result: dict[str, Any]) -> None:
    """Raise the problem that a run's bad end means; nothing for one that succeeded or waits for a person."""
    status = result["status"]
    if status in ("success", "interrupted"):
        return
    kind = result.get("error", {}).get("kind", status) if status == "error" else status
    code, slug, detail = _PROBLEMS.get(kind, _PROBLEMS["internal"])
    raise ProblemError(code, slug, detail, run_id=result["run_id"], thread_id=result["thread_id"])
