"""What users asked to be remembered: found again in any thread, by that tenant and user alone.

Each memory is an item of LangGraph's store under the namespace ("memories", tenant, user); its key is a hash of its
text, so that remembering a thing twice keeps it once.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from langgraph.store.base import BaseStore, Item, SearchItem

from app.infra.errors import NotFound, Unavailable
from app.infra.ids import TenantId, UserId

MAX_CHARS: Final = 2_000
"""Longest text of one memory."""
_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Memory:
    """One remembered text. Times are ISO 8601; `score` is cosine similarity, None where nothing was asked."""

    id: str
    text: str
    created_at: str
    score: float | None = None


class MemoryNotFound(NotFound):
    def __init__(self, memory_id: str) -> None:
        super().__init__(f"there is no memory {memory_id}", fix="use an id from the list of memories")
        self.memory_id = memory_id


class Memories:
    """Memories in a store. Without a store (no QDRANT_URL) every call raises `Unavailable`."""

    def __init__(self, store: BaseStore | None) -> None:
        self._store = store

    def _open(self) -> BaseStore:
        if self._store is None:
            raise Unavailable("long-term memory is off", fix="set QDRANT_URL")
        return self._store

    async def remember(self, tenant: TenantId, user: UserId, text: str) -> Memory:
        """Keep `text`. Doing it twice is safe. Raises ValueError for an empty or too long text, `Unavailable`."""
        text = " ".join(text.split())
        if not 0 < len(text) <= MAX_CHARS:
            raise ValueError(f"a memory has 1 to {MAX_CHARS} characters, this one {len(text)}")
        space, key = _namespace(tenant, user), hashlib.sha256(text.encode()).hexdigest()[:32]
        store = self._open()
        kept = await store.aget(space, key)
        if kept is None:
            await store.aput(space, key, {"text": text})
            kept = await store.aget(space, key)
        if kept is None:
            raise Unavailable("the memory was deleted while it was being written")
        return _memory(kept)

    async def recall(self, tenant: TenantId, user: UserId, query: str, *, limit: int = 5) -> list[Memory]:
        """The memories nearest in meaning to `query`, best first; none is an empty list. Raises `Unavailable`."""
        found = await self._open().asearch(_namespace(tenant, user), query=query, limit=limit)
        return [_memory(item) for item in found]

    async def list(self, tenant: TenantId, user: UserId, *, limit: int = 100, offset: int = 0) -> list[Memory]:
        """The memories, newest first. Raises `Unavailable`."""
        found = await self._open().asearch(_namespace(tenant, user), limit=limit, offset=offset)
        return [_memory(item) for item in found]

    async def delete(self, tenant: TenantId, user: UserId, memory_id: str) -> None:
        """Forget one. Raises `MemoryNotFound` when this user has none of that id, `Unavailable`."""
        store, space = self._open(), _namespace(tenant, user)
        if await store.aget(space, memory_id) is None:
            raise MemoryNotFound(memory_id)
        await store.adelete(space, memory_id)

    async def delete_all(self, tenant: TenantId, user: UserId) -> int:
        """Forget everything of this user; the number of memories that were deleted. Raises `Unavailable`."""
        return await self._delete_below(_namespace(tenant, user))

    async def delete_tenant(self, tenant: TenantId) -> int:
        """Forget everything of all users of a tenant; the number of memories deleted. Raises `Unavailable`."""
        return await self._delete_below(("memories", _label(tenant)))

    async def _delete_below(self, space: tuple[str, ...]) -> int:
        store, deleted = self._open(), 0
        while found := await store.asearch(space, limit=_PAGE):
            await asyncio.gather(*(store.adelete(item.namespace, item.key) for item in found))
            deleted += len(found)
        return deleted


def _namespace(tenant: TenantId, user: UserId) -> tuple[str, str, str]:
    return ("memories", _label(tenant), _label(user))


def _label(text: str) -> str:
    """`text` as a label of a namespace: LangGraph allows neither an empty one nor a period."""
    return "=" + quote(text, safe="").replace(".", "%2E")


def _memory(item: Item | SearchItem) -> Memory:
    score = item.score if isinstance(item, SearchItem) else None
    return Memory(item.key, str(item.value["text"]), item.created_at.isoformat(), score)
