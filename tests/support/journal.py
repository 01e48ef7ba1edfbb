"""An effect journal in memory, for tests of what stands above it."""

from __future__ import annotations

from collections.abc import Sequence

from app.infra.effects import Decision, Effect, EffectCall
from app.infra.ids import RunId


class Journal:
    """An effect journal in memory: each key is performed once; what is unknown stays so until it is decided."""

    def __init__(self) -> None:
        self.records: dict[str, Effect] = {}

    async def perform(self, call: EffectCall) -> Effect:
        if call.key not in self.records:
            outcome = await call.perform()
            self.records[call.key] = Effect(
                id=call.key,
                state=outcome.state,
                tool=call.tool,
                call_id=call.call_id,
                task_id=call.task_id,
                run_id=RunId("r1"),
                attempt=1,
                epoch=1,
                nonce="0",
                at_ms=0,
                result=outcome.result,
                reason=outcome.reason,
            )
        return self.records[call.key]

    async def decide(self, decisions: Sequence[Decision], *, by: str, answers: int) -> None:
        raise AssertionError("nobody was asked")
