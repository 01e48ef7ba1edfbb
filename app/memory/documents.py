"""Search over a folder of documents, by word and by meaning together.

Words are matched in memory. Vectors lie in Qdrant, a collection per corpus and embedding model; a passage's id follows
from its content, so indexing is incremental and several processes may do it at once. Without Qdrant, or while it or the
embedding model is away, words alone are used and the result says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.infra.errors import Unavailable
from app.infra.logging import get_logger
from app.memory import passages
from app.memory.embeddings import EmbeddingModel
from app.memory.passages import Fingerprint, Passage
from app.memory.qdrant import collection_name, is_missing, outages
from app.memory.words import WordIndex

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

_log = get_logger(__name__)

_RESCAN_SECONDS: Final = 10.0
"""How long the folder is believed unchanged."""
_RECHECK_SECONDS: Final = 600.0
"""How long the collection is believed whole: another process with another folder may have cleared it."""
_RETRY_SECONDS: Final = 15.0
"""Pause after a failed indexing."""
_PATIENCE_SECONDS: Final = 3.0
"""How long a search waits for an indexing under way before it goes on by word alone."""
_CANDIDATES: Final = 20
"""Best of each kind that are fused."""
_RRF_K: Final = 60
"""Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion", SIGIR 2009."""
_BATCH: Final = 16
_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found. `score` orders the hits of one search and means nothing beyond it."""

    passage: Passage
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, best first. `degraded` says why meaning was left out; empty when it was not."""

    hits: list[Hit]
    degraded: str = ""


class DocumentIndex:
    """The documents of one folder. `corpus` names them among others in the same Qdrant."""

    def __init__(
        self,
        folder: Path,
        *,
        corpus: str,
        qdrant: AsyncQdrantClient | None = None,
        embeddings: EmbeddingModel | None = None,
    ) -> None:
        self._folder, self._corpus = folder, corpus
        self._vectors = _Vectors(corpus, qdrant, embeddings) if qdrant is not None and embeddings is not None else None
        self._fingerprint: Fingerprint | None = None
        self._passages: dict[str, Passage] = {}
        self._order: list[str] = []
        self._words = WordIndex([])
        self._scan_due = 0.0
        self._scanning = asyncio.Lock()

    async def search(self, query: str, limit: int) -> Found:
        """The best `limit` passages. Never raises for an outage; see `Found.degraded`."""
        await self._rescan()
        by_word = [self._order[place] for place, _ in self._words.search(query, _CANDIDATES)]
        by_meaning: list[str] = []
        degraded = "QDRANT_URL is not set"
        if self._vectors is not None:
            try:
                by_meaning = await self._vectors.search(query, self._passages)
                degraded = ""
            except Unavailable as error:
                degraded = error.text
        scores = fuse(by_word, [id_ for id_ in by_meaning if id_ in self._passages])
        return Found([Hit(self._passages[id_], score) for id_, score in scores[:limit]], degraded)

    async def empty(self) -> bool:
        """Whether there is nothing to search."""
        await self._rescan()
        return not self._passages

    async def _rescan(self) -> None:
        async with self._scanning:
            if time.monotonic() < self._scan_due:
                return
            seen = await asyncio.to_thread(passages.fingerprint, self._folder)
            self._scan_due = time.monotonic() + _RESCAN_SECONDS
            if seen == self._fingerprint:
                return
            found = {passage.id: passage for passage in await asyncio.to_thread(passages.read, self._folder)}
            words = await asyncio.to_thread(WordIndex, [passage.embedded for passage in found.values()])
            self._fingerprint, self._passages, self._order, self._words = seen, found, list(found), words
            if self._vectors is not None:
                self._vectors.expect_changes()

    async def warm(self) -> None:
        """Begin the indexing before the first search asks for it; does not wait for its end."""
        await self._rescan()
        if self._vectors is not None:
            self._vectors.start(self._passages)

    async def close(self) -> None:
        """End an indexing under way; what it has written stays and is not done again."""
        if self._vectors is not None:
            await self._vectors.close()


def fuse(*rankings: Sequence[str]) -> list[tuple[str, float]]:
    """Reciprocal rank fusion: (id, score), best first; ties in the order of the first ranking."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, id_ in enumerate(ranking, start=1):
            scores[id_] = scores.get(id_, 0.0) + 1 / (_RRF_K + rank)
    return sorted(scores.items(), key=lambda item: -item[1])


class _Vectors:
    """The passages' vectors in Qdrant, brought up to date in the background."""

    def __init__(self, corpus: str, qdrant: AsyncQdrantClient, embeddings: EmbeddingModel) -> None:
        self._corpus, self._qdrant, self._embeddings = corpus, qdrant, embeddings
        self._indexing: asyncio.Task[None] | None = None
        self._due = 0.0
        self._collection = ""

    def expect_changes(self) -> None:
        """The passages are others now."""
        self._due = 0.0

    async def search(self, query: str, current: dict[str, Passage]) -> list[str]:
        """Ids nearest in meaning, best first; some may be of passages no longer there. Raises `Unavailable`."""
        await self._bring_up_to_date(current)
        vector = await self._embeddings.aembed_query(query)
        try:
            with outages():
                answer = await self._qdrant.query_points(
                    self._collection, query=vector, limit=_CANDIDATES, with_payload=False
                )
        except Exception as error:
            if not is_missing(error):
                raise
            self._due = 0.0
            raise Unavailable("the documents are being indexed again") from error
        return [str(point.id) for point in answer.points]

    async def _bring_up_to_date(self, current: dict[str, Passage]) -> None:
        """Return once the index is whole; raises `Unavailable` when that fails or takes longer than the patience."""
        self.start(current)
        if self._indexing is None:
            raise Unavailable("the documents are not indexed")
        task = self._indexing
        await asyncio.wait({task}, timeout=_PATIENCE_SECONDS)
        if not task.done():
            raise Unavailable("the documents are still being indexed")
        error = task.exception()
        if error is None:
            return
        self._due = min(self._due, time.monotonic() + _RETRY_SECONDS)
        if isinstance(error, Unavailable):
            raise Unavailable(error.text, fix=error.fix) from error
        if is_missing(error):
            raise Unavailable("the index of documents vanished while it was being written") from error
        raise error

    def start(self, current: dict[str, Passage]) -> None:
        """Begin to bring the index up to date when that is due; `search` waits for it."""
        idle = self._indexing is None or self._indexing.done()
        if idle and time.monotonic() >= self._due:
            self._due = time.monotonic() + _RECHECK_SECONDS
            self._indexing = asyncio.create_task(self._index(dict(current)), name="index documents")
            # The next search raises what went wrong; asyncio must not report it too when the process ends before.
            self._indexing.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _index(self, current: dict[str, Passage]) -> None:
        from qdrant_client import models

        begun = time.monotonic()
        size = await self._embeddings.dimensions()
        self._collection = collection_name("documents", self._corpus, self._embeddings.name, str(size))
        with outages():
            await self._ensure_collection(models.VectorParams(size=size, distance=models.Distance.COSINE))
            present = await self._present()
            missing = [passage for id_, passage in current.items() if id_ not in present]
            for start in range(0, len(missing), _BATCH):
                batch = missing[start : start + _BATCH]
                vectors = await self._embeddings.aembed_documents([passage.embedded for passage in batch])
                points = [
                    models.PointStruct(id=passage.id, vector=vector, payload={"uri": passage.uri})
                    for passage, vector in zip(batch, vectors, strict=True)
                ]
                await self._qdrant.upsert(self._collection, points)
            stale: list[Any] = sorted(present - current.keys())
            for start in range(0, len(stale), _PAGE):
                await self._qdrant.delete(self._collection, models.PointIdsList(points=stale[start : start + _PAGE]))
        if missing or stale:
            seconds = round(time.monotonic() - begun, 3)
            _log.info("documents.indexed", added=len(missing), removed=len(stale), seconds=seconds)

    async def _ensure_collection(self, vectors: Any) -> None:
        if await self._qdrant.collection_exists(self._collection):
            return
        try:
            with outages():
                await self._qdrant.create_collection(self._collection, vectors_config=vectors)
        except Unavailable:
            # Another process was faster: 409.
            if not await self._qdrant.collection_exists(self._collection):
                raise

    async def _present(self) -> set[str]:
        ids: set[str] = set()
        offset: Any = None
        while True:
            points, offset = await self._qdrant.scroll(
                self._collection, limit=_PAGE, offset=offset, with_payload=False, with_vectors=False
            )
            ids.update(str(point.id) for point in points)
            if offset is None:
                return ids

    async def close(self) -> None:
        if self._indexing is not None:
            self._indexing.cancel()
            await asyncio.wait({self._indexing})
