"""LangGraph's long-term store over Qdrant: what graphs of this service get as `store`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from langgraph.store.base import Op, Result
from langgraph.store.qdrant import AsyncQdrantStore
from qdrant_client import AsyncQdrantClient

from app.infra.settings import Settings
from app.memory.embeddings import EmbeddingModel
from app.memory.qdrant import collection_name, open_qdrant, outages

TEXT_FIELD = "text"
"""The field of an item that is embedded; items without it are found by namespace and filter only."""


class MemoryStore(AsyncQdrantStore):
    """An `AsyncQdrantStore` that makes its collection on first use and reports an outage as `Unavailable`.

    So a process starts while Qdrant is away, and one that only lists and deletes never loads the embedding model.
    """

    def __init__(self, client: AsyncQdrantClient, embeddings: EmbeddingModel) -> None:
        """Must be made inside a running event loop. `client` becomes the store's own."""
        # 1 stands in for the true size until it is known; nothing reads it before `_set_up`.
        super().__init__(
            client,
            collection_name=collection_name("memories", embeddings.name),
            index={"dims": 1, "embed": embeddings, "fields": [TEXT_FIELD]},
        )
        self._model = embeddings
        self._ready = False
        self._setting_up = asyncio.Lock()

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """All operations, in one round. Raises `Unavailable`."""
        with outages():
            await self._set_up()
            return await super().abatch(ops)

    async def _set_up(self) -> None:
        async with self._setting_up:
            if not self._ready and self.index_config is not None:
                self.index_config["dims"] = await self._model.dimensions()
                await self.setup()
                self._ready = True

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()


def open_store(settings: Settings, embeddings: EmbeddingModel) -> MemoryStore | None:
    """The store over QDRANT_URL; None where none is configured. Call it inside the event loop, `close` it with it."""
    client = open_qdrant(settings)
    return None if client is None else MemoryStore(client, embeddings)
