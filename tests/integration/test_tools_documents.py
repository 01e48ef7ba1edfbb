"""Documents and memories over the local vector store with the bundled embedding model: nothing is faked here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from qdrant_client import AsyncQdrantClient

from app.infra.errors import Unavailable
from app.infra.ids import TenantId, UserId
from app.infra.settings import Settings, load
from app.memory.documents import DocumentIndex, Found
from app.memory.embeddings import MiniLm, open_embeddings
from app.memory.memories import Memories
from app.memory.qdrant import open_qdrant
from app.memory.store import open_store
from app.tools.builtin import builtin_tools
from tests.support.vector_store import VectorStore
from tests.support.waiting import eventually

_DOCUMENTS = {
    "runs.md": "# Runs\n\n## Take-over\n\nWhen a worker dies, its lease ends and another one carries the task on.\n\n"
    "## Queue\n\nA sorted set holds what waits to be executed.\n",
    "money.md": "# Money\n\n## Budgets\n\nSpending is reserved before each model call and settled afterwards.\n",
    "food.md": "# Canteen\n\nLunch is served at noon. On Fridays there is fish.\n",
}


@pytest.fixture(scope="module")
def embeddings() -> MiniLm:
    """The bundled model, loaded once."""
    return MiniLm()


@pytest.fixture
def store() -> Iterator[VectorStore]:
    """A running, empty vector store."""
    with VectorStore(api_key="k") as running:
        yield running


@pytest.fixture
def settings(store: VectorStore) -> Settings:
    """Settings that point to it."""
    tools = load(None).tools.model_copy(update={"qdrant_url": store.url, "qdrant_api_key": SecretStr("k")})
    return load(None).model_copy(update={"tools": tools})


@pytest.fixture
async def qdrant(settings: Settings) -> AsyncIterator[AsyncQdrantClient]:
    """The client that the service would use."""
    client = open_qdrant(settings)
    assert client is not None
    yield client
    await client.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three documents."""
    for name, text in _DOCUMENTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


async def searched(index: DocumentIndex, query: str) -> Found:
    """The result once the index is whole."""
    return await eventually(lambda: index.search(query, 3), until=lambda found: not found.degraded, seconds=60)


async def ids_of(qdrant: AsyncQdrantClient) -> set[str]:
    points, _ = await qdrant.scroll("documents-test-minilm-384", limit=1_000)
    return {str(point.id) for point in points}


async def test_a_passage_is_found_by_meaning_without_a_word_in_common(
    folder: Path, qdrant: AsyncQdrantClient, embeddings: MiniLm
) -> None:
    """Users do not know our words."""
    index = DocumentIndex(folder, corpus="test", qdrant=qdrant, embeddings=embeddings)
    for query, uri in (
        ("a machine crashed, who finishes the job", "runs.md#take-over"),
        ("limiting costs of LLM usage", "money.md#budgets"),
        ("what can I eat", "food.md#canteen"),
    ):
        assert (await searched(index, query)).hits[0].passage.uri == uri
    await index.close()


async def test_indexing_is_incremental_and_several_workers_may_do_it_at_once(
    folder: Path, qdrant: AsyncQdrantClient, embeddings: MiniLm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every worker starts with the same folder; an edit must cost one embedding and leave no old passage behind."""
    monkeypatch.setattr("app.memory.documents._RESCAN_SECONDS", 0.0)
    indexes = [DocumentIndex(folder, corpus="test", qdrant=qdrant, embeddings=embeddings) for _ in range(3)]
    await asyncio.gather(*(searched(index, "lunch") for index in indexes))
    before = await ids_of(qdrant)
    assert len(before) == 4

    (folder / "food.md").write_text("# Canteen\n\nLunch is served at one.\n")
    (folder / "money.md").unlink()
    found = await searched(indexes[0], "when is lunch")
    assert found.hits[0].passage.text == "Lunch is served at one."
    after = await ids_of(qdrant)
    assert (len(after), len(before & after)) == (3, 2)
    stale = await searched(indexes[1], "reserve money for spending")
    assert all(hit.passage.path != "money.md" for hit in stale.hits)
    for index in indexes:
        await index.close()


async def test_an_outage_leaves_words_and_heals_by_itself(
    folder: Path, store: VectorStore, qdrant: AsyncQdrantClient, embeddings: MiniLm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vector store may restart, empty even, while the service runs."""
    monkeypatch.setattr("app.memory.documents._RETRY_SECONDS", 0.0)
    store.stop()
    index = DocumentIndex(folder, corpus="test", qdrant=qdrant, embeddings=embeddings)
    found = await index.search("lease of a worker", 3)
    assert (found.degraded, found.hits[0].passage.uri) == ("Qdrant does not answer", "runs.md#take-over")
    store.start()
    assert (await searched(index, "who finishes the job of a crashed machine")).hits[
        0
    ].passage.uri == "runs.md#take-over"
    await qdrant.delete_collection("documents-test-minilm-384")
    assert (await index.search("lease", 3)).degraded
    assert (await searched(index, "lease")).hits
    await index.close()


async def test_a_memory_is_recalled_by_meaning_by_its_user_alone(settings: Settings) -> None:
    """Told in one thread, asked for in another in other words; nobody else's question finds it."""
    store = open_store(settings, open_embeddings(settings))
    assert store is not None
    memories, ann, bob = Memories(store), UserId("ann"), UserId("bob")
    tenant = TenantId("acme.com")
    await memories.remember(tenant, ann, "I am allergic to peanuts")
    await memories.remember(tenant, ann, "My favourite colour is green")
    assert (await memories.recall(tenant, ann, "what food must I avoid", limit=1))[0].text == "I am allergic to peanuts"
    for other_tenant, other_user in ((tenant, bob), (TenantId("other"), ann)):
        assert await memories.recall(other_tenant, other_user, "what food must I avoid") == []
        assert await memories.list(other_tenant, other_user) == []
    assert [memory.text for memory in await memories.list(tenant, ann)] == [
        "My favourite colour is green",
        "I am allergic to peanuts",
    ]
    assert await memories.delete_all(tenant, ann) == 2
    assert await memories.list(tenant, ann) == []
    await store.close()


class NeverLoaded(MiniLm):
    """The bundled model, where nobody may ask it for a vector."""

    def embed_query(self, text: str) -> list[float]:
        raise AssertionError("a vector was asked for")


async def test_listing_and_deleting_load_no_model(settings: Settings) -> None:
    """The api process lists and deletes; 130 MB of model there would serve nothing."""
    store = open_store(settings, NeverLoaded())
    assert store is not None
    memories = Memories(store)
    assert await memories.list(TenantId("acme"), UserId("ann")) == []
    assert await memories.delete_all(TenantId("acme"), UserId("ann")) == 0
    await store.close()


async def test_memories_name_the_outage_and_come_back(settings: Settings, store: VectorStore) -> None:
    """The api turns `Unavailable` into 503 with Retry-After."""
    opened = open_store(settings, MiniLm())
    assert opened is not None
    memories = Memories(opened)
    store.stop()
    with pytest.raises(Unavailable, match="Qdrant does not answer"):
        await memories.list(TenantId("acme"), UserId("ann"))
    store.start()
    assert await memories.list(TenantId("acme"), UserId("ann")) == []
    await opened.close()


async def test_the_built_in_tools_work_together(settings: Settings, folder: Path, embeddings: MiniLm) -> None:
    """What the graph gets: documents and the sample database, read as a planner would, through the registry."""
    tools = settings.tools.model_copy(update={"documents_path": folder})
    registry = builtin_tools(settings.model_copy(update={"tools": tools}), store=None, embeddings=embeddings)
    assert registry.names() == ["query_database", "search_documents"]
    await registry.warm()
    found = await registry.invoke("search_documents", {"query": "lunch"}, call_id="a", task_id="t", context=None)
    assert found.sources[0].uri == "food.md#canteen"
    assert "CREATE TABLE" in await registry.details()
    rows = await registry.invoke(
        "query_database", {"sql": "SELECT count(*) AS n FROM customers"}, call_id="b", task_id="t", context=None
    )
    assert rows.data["columns"] == ["n"]
    assert rows.sources[0].uri == "database:customers"
    await registry.close()
