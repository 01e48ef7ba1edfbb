"""POST /crons, GET /crons, GET, PATCH and DELETE /crons/{cron_id}: messages sent at the times of a schedule."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any, Self

import orjson
from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from app.api.dependencies import CallerDep, IdempotencyKey, Parts
from app.api.problems import ProblemError, problems
from app.api.start import check_graph, check_message
from app.api.views import time_of
from app.infra.ids import ID_PATTERN, ThreadId
from app.runs.model import Strategy
from app.runs.schedule.model import Cron, NeverDue, NewCron
from app.runs.schedule.times import check_schedule, check_timezone

router = APIRouter(prefix="/crons", tags=["crons"])

CronId = Annotated[str, Path(pattern=ID_PATTERN)]
_LAST_YEAR = 9999


def _says_something(message: str) -> str:
    if not message.strip():
        raise ValueError("must say something")
    return message


def _has_a_date_everywhere(moment: datetime | None) -> datetime | None:
    """The first and the last day of the calendar have no date in other zones, and what is shown is UTC."""
    try:
        if moment is None or moment.astimezone(UTC).year < _LAST_YEAR:
            return moment
    except OverflowError:
        pass
    raise ValueError(f"must lie before the year {_LAST_YEAR}; leave it out for a cron without end")


Message = Annotated[
    str, Field(min_length=1, description="What the agent is told each time."), AfterValidator(_says_something)
]
Schedule = Annotated[
    str,
    AfterValidator(check_schedule),
    Field(
        description="Five fields of cron: minute, hour, day of the month, month, weekday.",
        examples=["30 8 * * MON-FRI"],
    ),
]
Timezone = Annotated[
    str,
    AfterValidator(check_timezone),
    Field(description="IANA time zone that the schedule is read in.", examples=["Europe/Berlin"]),
]
End = Annotated[
    AwareDatetime | None,
    AfterValidator(_has_a_date_everywhere),
    Field(description="After this moment it comes due no more; ISO 8601 with zone."),
]
WhenBusy = Annotated[
    Strategy,
    Field(description="What to do when the thread has an unfinished run: reject, enqueue, interrupt or rollback."),
]


class CronRequest(BaseModel):
    """A message to send, and when."""

    model_config = ConfigDict(extra="forbid")

    message: Message
    schedule: Schedule
    timezone: Timezone = "UTC"
    thread_id: Annotated[
        str | None,
        Field(pattern=ID_PATTERN, description="The conversation to go on with; left out, each run begins one."),
    ] = None
    graph: Annotated[str | None, Field(description="Which registered graph answers; default: DEFAULT_GRAPH.")] = None
    multitask_strategy: WhenBusy = Strategy.ENQUEUE
    end_at: End = None


class CronChange(BaseModel):
    """What is to be changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    enabled: Annotated[bool | None, Field(description="false pauses it, true lets it go on.")] = None
    message: Message | None = None
    schedule: Schedule | None = None
    timezone: Timezone | None = None
    graph: str | None = None
    multitask_strategy: WhenBusy | None = None
    end_at: End = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError('name at least one field to change; example: {"enabled": false}')
        if empty := [name for name in self.model_fields_set - {"end_at"} if getattr(self, name) is None]:
            raise ValueError(f"{', '.join(sorted(empty))}: null is no value for it; leave it out to keep what it is")
        return self


class CronView(BaseModel):
    """A cron."""

    cron_id: str
    message: str
    schedule: str
    timezone: str
    thread_id: str | None
    graph: str
    multitask_strategy: str
    release: str = Field(description="Whose workers execute its runs, while they are there.")
    enabled: bool
    created_at: datetime
    end_at: datetime | None
    next_run_at: datetime | None = Field(description="null while it is paused, and once it has ended.")
    last_run_at: datetime | None = Field(description="The last moment that came due.")
    last_run_id: str | None = Field(description="The last run that it started; read it at /runs/{run_id}.")
    last_error: str | None = Field(description="Why the last moment started no run; null when it did.")

    @classmethod
    def of(cls, cron: Cron) -> CronView:
        return cls(
            cron_id=cron.cron_id,
            message=cron.message,
            schedule=cron.schedule,
            timezone=cron.timezone,
            thread_id=cron.thread_id,
            graph=cron.graph,
            multitask_strategy=cron.strategy,
            release=cron.release,
            enabled=cron.enabled,
            created_at=time_of(cron.created_ms),
            end_at=None if cron.end_ms is None else time_of(cron.end_ms),
            next_run_at=None if cron.next_ms is None else time_of(cron.next_ms),
            last_run_at=None if cron.last_ms is None else time_of(cron.last_ms),
            last_run_id=cron.last_run_id,
            last_error=cron.last_error or None,
        )


@router.post("", status_code=201, responses=problems(400, 401, 404, 409, 413, 422, 503))
async def create_cron(
    asked: CronRequest, api: Parts, caller: CallerDep, response: Response, idempotency_key: IdempotencyKey = None
) -> CronView:
    """Send a message at the times of a schedule, as the calling user. Times that were missed are made up for once."""
    check_message(api, asked.message)
    graph = check_graph(api, asked.graph or api.settings.service.default_graph)
    request = [caller.user, graph, asked.model_dump(mode="json")]
    try:
        cron = await api.crons.create(
            NewCron(
                tenant=caller.tenant,
                user=caller.user,
                graph=graph,
                message=asked.message,
                schedule=asked.schedule,
                timezone=asked.timezone,
                thread_id=ThreadId(asked.thread_id) if asked.thread_id else None,
                strategy=asked.multitask_strategy,
                end_ms=_milliseconds(asked.end_at),
                idempotency_key=idempotency_key or "",
                digest=hashlib.sha256(orjson.dumps(request)).hexdigest(),
            )
        )
    except NeverDue as error:
        raise _never_due(error) from error
    api.scheduler.wake()
    response.headers["Location"] = f"/crons/{cron.cron_id}"
    return CronView.of(cron)


@router.get("", responses=problems(401, 422, 503))
async def list_crons(
    api: Parts,
    caller: CallerDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> list[CronView]:
    """The crons of the caller's tenant, the oldest first."""
    return [CronView.of(cron) for cron in await api.crons.of_tenant(caller.tenant, limit=limit, offset=offset)]


@router.get("/{cron_id}", responses=problems(401, 404, 422, 503))
async def get_cron(cron_id: CronId, api: Parts, caller: CallerDep) -> CronView:
    """When a cron comes due next, and what came of it last."""
    return CronView.of(await api.crons.get(cron_id, caller.tenant))


@router.patch("/{cron_id}", responses=problems(400, 401, 404, 409, 413, 422, 503))
async def change_cron(cron_id: CronId, asked: CronChange, api: Parts, caller: CallerDep) -> CronView:
    """Pause a cron, let it go on, or change what it does. What came due while it was paused is not made up for."""
    changes: dict[str, Any] = {name: getattr(asked, name) for name in asked.model_fields_set}
    if "message" in changes:
        check_message(api, changes["message"])
    if "graph" in changes:
        check_graph(api, changes["graph"])
    if "multitask_strategy" in changes:
        changes["strategy"] = changes.pop("multitask_strategy")
    if "end_at" in changes:
        changes["end_ms"] = _milliseconds(changes.pop("end_at"))
    try:
        cron = await api.crons.change(cron_id, caller.tenant, **changes)
    except NeverDue as error:
        raise _never_due(error) from error
    api.scheduler.wake()
    return CronView.of(cron)


@router.delete("/{cron_id}", status_code=204, responses=problems(401, 404, 422, 503))
async def delete_cron(cron_id: CronId, api: Parts, caller: CallerDep) -> None:
    """Forget a cron. Runs that it has started go on, and can be cancelled at /runs/{run_id}/cancel."""
    await api.crons.delete(cron_id, caller.tenant)


def _never_due(error: NeverDue) -> ProblemError:
    return ProblemError(422, "never-due", f"schedule: {error}")


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
