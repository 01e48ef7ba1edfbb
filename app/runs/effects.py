"""The effect journal: what a tool call did, so that running a step again does not do it again.

This version has the interface only: `DirectEffects` calls. A step that is run again after a crash calls its
tools again, with the same key, which tools that take an idempotency key pass on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class DirectEffects:
    """An `app.infra.context.EffectJournal` that keeps no record."""

    async def perform(self, key: str, *, tool: str, idempotent: bool, call: Callable[[], Awaitable[str]]) -> str:
        """The result of `call`."""
        return await call()
