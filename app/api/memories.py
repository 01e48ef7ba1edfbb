"""Long-term memory as the api sees it: opened at the first request, for most processes never."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.infra.settings import Settings

if TYPE_CHECKING:
    from app.memory.memories import Memories
    from app.memory.store import MemoryStore


class LazyMemories:
    """Opens the store once it is asked for: its clients cost 60 MB that an api process need not carry."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: MemoryStore | None = None
        self._memories: Memories | None = None
        self._opening = asyncio.Lock()

    async def get(self) -> Memories:
        """The memories; without QDRANT_URL each call on them raises `Unavailable`."""
        async with self._opening:
            if self._memories is None:
                await asyncio.to_thread(self._load)
                from app.memory.embeddings import open_embeddings
                from app.memory.memories import Memories
                from app.memory.store import open_store

                self._store = open_store(self._settings, open_embeddings(self._settings))
                self._memories = Memories(self._store)
            return self._memories

    @staticmethod
    def _load() -> None:
        """Import in a thread: it takes a second, in which the event loop serves others."""
        import app.memory.memories
        import app.memory.store  # noqa: F401

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()
