"""Questions to a person about tool calls, put through LangGraph's `interrupt`.

LangGraph matches the answers to a step's interrupts by their order, and runs the step again from its beginning with
each answer. So a step asks one question at a time, about all the calls that need one, after all its other calls have
settled; and it takes in each pass the answers of earlier passes first, although their decisions are in the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TypeVar

from langgraph.errors import GraphInterrupt
from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.infra.context import RunContext
from app.infra.effects import Decision, Effect, EffectState
from app.tools.tool import ToolCall, ToolResult

T = TypeVar("T")

EFFECT_UNKNOWN = "effect_unknown"
"""`kind` of the question what became of calls that were cut off."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call that was made, or found in the journal. `result` None: its outcome is unknown."""

    call: ToolCall
    args: dict[str, Any]
    result: ToolResult | None
    effect: Effect | None = None
    """The journal's record; None where the call never came so far."""

    def certain(self) -> ToolResult:
        """The result. Only for a call whose outcome is known."""
        if self.result is None:
            raise ValueError(f"the outcome of call {self.call.call_id!r} is unknown: ask for it first")
        return self.result


class _Done(BaseModel):
    model_config = ConfigDict(extra="forbid")
    decision: Literal["done"]
    result: str = Field(max_length=32_000)


class _Failed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    decision: Literal["failed"]
    reason: str = Field(max_length=32_000)


class _Repeat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    decision: Literal["repeat"]


_DECISION: TypeAdapter[_Done | _Failed | _Repeat] = TypeAdapter(_Done | _Failed | _Repeat)
_FORMS = (
    '{"decision": "done", "result": "<what it gave>"}, {"decision": "failed", "reason": "<why>"} '
    'or {"decision": "repeat"}'
)


class Questions:
    """The questions of one batch of calls within one pass of a step; make one per pass."""

    def __init__(self) -> None:
        self._answers = 0
        """Answers taken so far in this pass."""

    async def settle(self, attempts: Sequence[Attempt], context: RunContext) -> bool:
        """Ask about those whose outcome is unknown; True: it is decided and recorded, make the calls again.

        Stops the run by `GraphInterrupt` while there is no answer. `attempts` are all calls of the batch that were
        made; the question names them in this order.
        """
        earlier = max((made.effect.answers for made in attempts if made.effect is not None), default=0)
        while self._answers < earlier:
            with contextlib.suppress(GraphInterrupt):  # an answer that is acted on need not be there any more
                interrupt({"kind": EFFECT_UNKNOWN, "calls": []})
            self._answers += 1
        unknown = {made.call.call_id: made for made in attempts if made.result is None and made.effect is not None}
        if not unknown:
            return False
        question = {"kind": EFFECT_UNKNOWN, "calls": [_asked(made) for made in unknown.values()]}
        decisions = self._ask(question, lambda answer: _decisions(answer, unknown))
        await context.effects.decide(decisions, by=context.user, answers=self._answers)
        return True

    def _ask(self, question: dict[str, Any], read: Callable[[Any], T]) -> T:
        """What `read` makes of the answer. One that it refuses by ValueError is not acted on: the question is put
        again, and says in `problem` what was wrong."""
        problem: dict[str, str] = {}
        while True:
            answer = interrupt(question | problem)
            self._answers += 1
            try:
                return read(answer)
            except ValueError as error:
                problem = {"problem": str(error)}


class Step:
    """The calls that one step of a graph makes through the registry at the same time: they ask together."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._questions = Questions()
        self._running = 0
        self._waiting: list[tuple[Attempt, asyncio.Future[bool]]] = []
        self._asking: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        return not self._running and not self._waiting

    def __enter__(self) -> None:
        self._running += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._running -= 1
        self._ask_if_settled()

    async def settled(self, made: Attempt) -> bool:
        """Wait for a person's decision where one is needed; True: the call is to be made again, it is decided."""
        if made.effect is None or (made.result is not None and not made.effect.answers):
            return False
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((made, answer))
        self._running -= 1
        self._ask_if_settled()
        try:
            return await answer
        finally:
            self._running += 1
            self._waiting = [entry for entry in self._waiting if entry[1] is not answer]

    def _ask_if_settled(self) -> None:
        if not self._running and self._waiting and (self._asking is None or self._asking.done()):
            self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        if self._running:  # others have begun since: the last of them asks
            return
        waiting = list(self._waiting)
        try:
            decided = await self._questions.settle([made for made, _ in waiting], self._context)
        except BaseException as error:  # each of them is told, and stops its call
            for _, answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for made, answer in waiting:
                if not answer.done():
                    answer.set_result(decided and made.result is None)


def _asked(made: Attempt) -> dict[str, Any]:
    assert made.effect is not None
    return {
        "call_id": made.call.call_id,
        "tool": made.call.tool,
        "args": made.args,
        "at": datetime.fromtimestamp(made.effect.at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "reason": made.effect.reason,
    }


def _decisions(answer: Any, unknown: dict[str, Attempt]) -> list[Decision]:
    """The answer's decision on each call. Raises ValueError, in words for the person, when it is not exactly that."""
    if not isinstance(answer, dict):
        raise ValueError(f"answer with an object that holds a decision for each call id: {_FORMS}")
    missing, strange = sorted(unknown.keys() - answer.keys()), sorted(map(str, answer.keys() - unknown.keys()))
    if missing or strange:
        wrong = [f"{what}: {', '.join(ids)}" for what, ids in (("missing", missing), ("not asked", strange)) if ids]
        raise ValueError(f"answer for exactly the calls that are asked about ({'; '.join(wrong)})")
    return [_decision(answer[id_], made) for id_, made in unknown.items()]


def _decision(given: Any, made: Attempt) -> Decision:
    assert made.effect is not None
    try:
        chosen = _DECISION.validate_python(given)
    except ValidationError as error:
        raise ValueError(f"the decision on {made.call.call_id} must be {_FORMS}") from error
    match chosen:
        case _Done():
            return Decision(made.effect, EffectState.DONE, ToolResult(ok=True, text=chosen.result).to_json())
        case _Failed():
            return Decision(made.effect, EffectState.FAILED, ToolResult.failed(chosen.reason).to_json())
        case _Repeat():
            return Decision(made.effect, EffectState.AGAIN, "")
