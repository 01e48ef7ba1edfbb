"""Starting a run and waiting for it: what `/chat`, `/chat/async` and `/api/stream` have in common."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.api.dependencies import Api
from app.api.problems import ProblemError, request_id
from app.infra import telemetry
from app.infra.auth import Caller
from app.infra.errors import RedisUnavailable, RunNotFound
from app.infra.ids import ID_PATTERN, RunId, ThreadId, new_id
from app.runs.model import Accepted, NewRun, Run, Strategy

_LOOK_AGAIN_SECONDS = 0.5


class ChatRequest(BaseModel):
    """A message for the agent, or the answer to what it asked; the body of every way to start a run."""

    model_config = ConfigDict(extra="forbid", strict=True)

    message: Annotated[str | None, Field(min_length=1, description="What the user says.")] = None
    resume: Annotated[
        Any,
        Field(
            description="In place of `message`: the answer to what the thread's last run asked (status `interrupted`). "
            "With several questions, an object from each `interrupts[].id` to its answer."
        ),
    ] = None
    thread_id: Annotated[
        str | None, Field(pattern=ID_PATTERN, description="The conversation to go on with; left out, a new one begins.")
    ] = None
    run_id: Annotated[
        str | None,
        Field(
            pattern=ID_PATTERN,
            description="With `resume`: the run whose question this answers. When another question is asked by then, "
            "it is refused (409); an answer without it would be given to that one.",
        ),
    ] = None
    graph: Annotated[str | None, Field(description="Which registered graph answers; default: DEFAULT_GRAPH.")] = None
    multitask_strategy: Annotated[
        Literal["reject", "enqueue", "interrupt", "rollback"],
        Field(
            description="When the thread has an unfinished run: refuse this one (409), let it wait, or stop that one "
            "and keep (`interrupt`) or undo (`rollback`) what it did to the thread."
        ),
    ] = "enqueue"

    @field_validator("message")
    @classmethod
    def _says_something(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must say something")
        return value

    @field_validator("resume")
    @classmethod
    def _can_be_stored(cls, value: Any) -> Any:
        try:  # what Python reads as JSON is more than others can: NaN, half of a surrogate pair, numbers without end
            orjson.dumps(value)
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "must be JSON that can be stored: whole numbers of at most 64 bits, no NaN or Infinity, whole Unicode "
                "characters, at most 250 levels of nesting"
            ) from error
        return value

    @model_validator(mode="after")
    def _is_a_message_or_an_answer(self) -> Self:
        if (self.message is not None) == self.answers:
            raise ValueError("send either message or resume, and not null")
        if self.answers and self.thread_id is None:
            raise ValueError("send the thread_id with resume: it names the conversation that asked")
        if self.run_id is not None and not self.answers:
            raise ValueError("leave run_id out with message: it names the run whose question resume answers")
        return self

    @property
    def answers(self) -> bool:
        """Whether this is an answer. LangGraph knows no answer of null."""
        return self.resume is not None


class LaterChatRequest(ChatRequest):
    """As a ChatRequest, for a run that nobody waits for."""

    after_seconds: Annotated[
        float,
        Field(
            ge=0,
            strict=False,
            allow_inf_nan=False,
            description="How long from now the run may begin at the earliest. For messages with the strategy enqueue "
            "or reject.",
        ),
    ] = 0

    @model_validator(mode="after")
    def _can_be_put_off(self) -> Self:
        # What would be stopped, undone or answered by then is not known now.
        if self.after_seconds and (self.answers or self.multitask_strategy in ("interrupt", "rollback")):
            raise ValueError(
                "leave after_seconds out with resume and with multitask_strategy interrupt or rollback: they act on "
                "what the thread is doing now"
            )
        return self


async def start(
    api: Api, caller: Caller, asked: ChatRequest, idempotency_key: str | None, run_id: RunId | None = None
) -> Accepted:
    """Write the run down, as `run_id` if one is given; when this returns, it will be executed."""
    if asked.message is not None:
        check_message(api, asked.message)
    after_seconds = asked.after_seconds if isinstance(asked, LaterChatRequest) else 0
    if after_seconds >= api.settings.runs.thread_retention_seconds:
        raise ProblemError(
            422, "too-late", f"after_seconds: must be below {api.settings.runs.thread_retention_seconds}"
        )
    asking = await _asking(api, caller, asked)
    graph = _graph(api, asked, asking)
    accepted = await api.ledger.accept(
        NewRun(
            run_id=run_id or RunId(new_id()),
            thread_id=ThreadId(asked.thread_id) if asked.thread_id else None,
            tenant=caller.tenant,
            user=caller.user,
            graph=graph,
            input={} if asked.answers else {"messages": [{"role": "user", "content": asked.message}]},
            command={"resume": _resume(asked.resume, asking)} if asked.answers else None,
            answers=RunId(asked.run_id) if asked.run_id else asking.run_id if asking else None,
            strategy=Strategy(asked.multitask_strategy),
            after=timedelta(seconds=after_seconds),
            request_id=request_id(),
            traceparent=telemetry.carry(),
            idempotency_key=idempotency_key or "",
            # Without defaults: the same request at another address, which knows more fields, is the same.
            digest=hashlib.sha256(orjson.dumps([caller.user, asked.model_dump(exclude_defaults=True)])).hexdigest(),
        )
    )
    if accepted.created:
        telemetry.runs_accepted.add(1, {"graph": graph})
    return accepted


async def _asking(api: Api, caller: Caller, asked: ChatRequest) -> Run | None:
    """The run whose question `asked` answers. None: nothing is asked; the ledger refuses it, or has taken it before."""
    if not asked.answers or asked.thread_id is None:
        return None
    thread = await api.ledger.thread(ThreadId(asked.thread_id), caller.tenant)
    if thread.asked is None or asked.run_id not in (None, thread.asked):
        return None
    with contextlib.suppress(RunNotFound):
        return await api.ledger.get(thread.asked, caller.tenant)
    return None


def _graph(api: Api, asked: ChatRequest, asking: Run | None) -> str:
    """The graph to run; an answer goes to the one that asked, for no other would know what to do with it."""
    if asking is not None and asked.graph not in (None, asking.graph):
        raise ProblemError(422, "wrong-graph", f"graph: leave it out, {asking.graph} waits for this answer")
    return check_graph(api, asking.graph if asking else asked.graph or api.settings.service.default_graph)


def _resume(answer: Any, asking: Run | None) -> Any:
    """The answer as an object from each question's id: so it reaches that question only."""
    questions = [question["id"] for question in ((asking and asking.result) or {}).get("interrupts", ())]
    if not questions or (isinstance(answer, dict) and answer and answer.keys() <= set(questions)):
        return answer
    if len(questions) > 1:
        raise ProblemError(
            422,
            "several-questions",
            f"resume: {len(questions)} questions wait; send an object from each of `interrupts[].id` to its answer",
            questions=questions,
        )
    return {questions[0]: answer}


def check_message(api: Api, message: str) -> None:
    """Raises the problem of a message that is too long."""
    most = api.settings.service.max_message_chars
    if len(message) > most:
        raise ProblemError(422, "message-too-long", f"message: has {len(message)} characters, at most {most} are taken")


def check_graph(api: Api, graph: str) -> str:
    """`graph`, when it is registered. Raises the problem of one that is not."""
    if graph not in api.graphs:
        raise ProblemError(422, "unknown-graph", f"graph: use one of {', '.join(api.graphs)}")
    return graph


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
                    if result is not None or api.hub.leaving:
                        return result
                    await api.ledger.get(run_id)  # nothing ends a run that Redis has forgotten
                except RedisUnavailable:
                    end.set()  # the run is safe: look again until the time is up
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
                except RunNotFound as error:
                    raise ProblemError(
                        503,
                        "run-lost",
                        "the run is gone before it ended: Redis has lost it, or it was deleted; send the request again",
                        headers={"Retry-After": "1"},
                        run_id=run_id,
                    ) from error
    except TimeoutError:
        return None


_PROBLEMS = {
    "run_timeout": (504, "run-timeout", "the run took longer than RUN_TIMEOUT_SECONDS; ask for less, or raise it"),
    "cancelled": (409, "run-cancelled", "the run was cancelled; start a new one"),
    "dependency_unavailable": (502, "dependency-unavailable", "the model or another service did not answer; try again"),
    "internal": (500, "run-failed", "the run failed; report its id to whoever runs the service"),
    "superseded": (409, "run-superseded", "a later message on this thread has stopped the run"),
    "rollback_failed": (500, "rollback-failed", "the thread could not be set back; report the run's id"),
    "rolled_back": (409, "run-rolled-back", "a later message on this thread has stopped and undone the run"),
    "attempts_exhausted": (500, "attempts-exhausted", "every allowed attempt of the run was cut off; report its id"),
    "graph_unknown": (500, "graph-unknown", "the workers of this release do not have that graph; deploy them again"),
}


def refuse_failed(result: dict[str, Any]) -> None:
    """Raise the problem that a run's bad end means; nothing for one that succeeded or waits for a person."""
    kind = result.get("error", {}).get("kind", result["status"])
    if kind in ("success", "interrupted"):
        return
    code, slug, detail = _PROBLEMS.get(kind, _PROBLEMS["internal"])
    raise ProblemError(code, slug, detail, run_id=result["run_id"], thread_id=result["thread_id"])
