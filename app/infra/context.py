"""What a node or tool may know of the run that it works for; handed down as LangGraph's runtime context.

`app.runs` fills it in. Outside a run (unit tests, a managed LangGraph deployment) there is none, and
whatever takes one must work without.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from app.infra.fence import Fence
from app.infra.ids import Release, RunId, TenantId, ThreadId, UserId


class EffectJournal(Protocol):
    """Runs a tool's effect so that it happens once for its key, whoever runs the step again."""

    async def perform(self, key: str, *, tool: str, idempotent: bool, call: Callable[[], Awaitable[str]]) -> str:
        """The result of `call`, or what an earlier attempt under the same `key` recorded.

        `key` names the effect: tenant, thread, LangGraph's task id and the call's id together. The result is
        the tool's output as text.
        """
        ...


@dataclass(frozen=True, slots=True)
class RunContext:
    """Identity of a run and the two things that make its writes safe."""

    run_id: RunId
    thread_id: ThreadId
    tenant: TenantId
    user: UserId
    release: Release
    attempt: int
    """1 for the first worker that took the run; a take-over or a retry adds one."""
    fence: Fence
    effects: EffectJournal
