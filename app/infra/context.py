"""What a node or tool may know of the run that it works for; handed down as LangGraph's runtime context.

`app.runs` fills it in. Outside a run (unit tests, a managed LangGraph deployment) there is none, and
whatever takes one must work without.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.infra.effects import EffectJournal
from app.infra.fence import Fence
from app.infra.ids import Release, RunId, TenantId, ThreadId, UserId


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
