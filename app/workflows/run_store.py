"""The long-term store of whatever run is under way, for tools that are made before any run."""

from __future__ import annotations

from collections.abc import Iterable

from langgraph.config import get_store
from langgraph.store.base import BaseStore, Op, Result

from app.infra.errors import Unavailable


class RunStore(BaseStore):
    """Hands each operation to the store that the worker, or a managed deployment, gave to the run.

    Outside a run, and in one without a store, every operation raises `Unavailable`.
    """

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        return _current().batch(ops)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return await _current().abatch(ops)


def _current() -> BaseStore:
    off = Unavailable("long-term memory is off", fix="set QDRANT_URL")
    try:
        store: BaseStore | None = get_store()
    except RuntimeError:  # outside a run
        raise off from None
    if store is None:
        raise off
    return store
