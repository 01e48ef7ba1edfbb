"""The local vector store, asked by the clients that the service uses, and hurt as machines hurt processes."""

from __future__ import annotations

import importlib.metadata
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langgraph.store.qdrant import AsyncQdrantStore
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.common.version_check import is_compatible
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from tests.support.vector_store import VectorStore

_DIMENSIONS = 16
_FLAT = models.VectorParams(size=_DIMENSIONS, distance=models.Distance.COSINE)


@pytest.fixture
def store() -> Iterator[VectorStore]:
    """A running store on an empty folder."""
    with VectorStore() as running:
        yield running


@pytest.fixture
def client(store: VectorStore) -> Iterator[QdrantClient]:
    """Qdrant's own client. Without its check of versions, which runs in a thread of its own, into our kills."""
    client = QdrantClient(url=store.url, check_compatibility=False)
    yield client
    client.close()


@pytest.fixture(scope="module")
def used_store() -> Iterator[VectorStore]:
    """One store for all requests that it must refuse, with a collection `docs`."""
    with VectorStore() as running:
        client = QdrantClient(url=running.url, check_compatibility=False)
        client.create_collection("docs", vectors_config=_FLAT)
        client.close()
        yield running


def vector(seed: int) -> list[float]:
    """The same vector for the same seed."""
    source = random.Random(seed)
    return [source.uniform(-1, 1) for _ in range(_DIMENSIONS)]


def points(numbers: range, **payload: str) -> list[models.PointStruct]:
    return [
        models.PointStruct(id=number, vector=vector(number), payload={"number": number, **payload})
        for number in numbers
    ]


def of(tenant: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="tenant", match=models.MatchValue(value=tenant))])


def test_a_vector_finds_itself_first_and_only_where_the_filter_allows(client: QdrantClient) -> None:
    """The two halves of every search: order by nearness, and hard borders between tenants."""
    client.create_collection("docs", vectors_config=_FLAT)
    client.create_payload_index("docs", "tenant", models.PayloadSchemaType.KEYWORD)
    client.upsert("docs", points(range(50), tenant="one"))
    client.upsert("docs", points(range(50, 100), tenant="two"))

    found = client.query_points("docs", vector(7), limit=3, with_payload=True).points
    assert [found[0].id, found[0].payload] == [7, {"number": 7, "tenant": "one"}]
    assert found[0].score == pytest.approx(1.0, abs=1e-5)
    other = client.query_points("docs", vector(7), limit=100, query_filter=of("two")).points
    assert {point.id for point in other} == set(range(50, 100))


def test_points_are_read_counted_paged_and_deleted_as_qdrant_does(client: QdrantClient) -> None:
    """What indexing needs beside search: what is there, in pages, and how to take it away."""
    client.create_collection("docs", vectors_config=_FLAT)
    client.upsert("docs", points(range(25), tenant="one"))
    first, following = client.scroll("docs", limit=20, with_payload=False)
    rest, end = client.scroll("docs", limit=20, offset=following)
    assert [point.id for point in first + rest] == list(range(25))
    assert end is None

    assert client.retrieve("docs", [3, 999], with_vectors=True)[0].payload == {"number": 3, "tenant": "one"}
    client.set_payload("docs", {"seen": True}, points=[3])
    assert client.retrieve("docs", [3])[0].payload == {"number": 3, "tenant": "one", "seen": True}
    client.delete("docs", models.PointIdsList(points=[0, 1]))
    client.delete(
        "docs",
        models.FilterSelector(filter=models.Filter(must=[models.HasIdCondition(has_id=[2, 3])])),
    )
    assert client.count("docs").count == 21


def test_a_collection_tells_its_shape_and_is_gone_when_deleted(client: QdrantClient) -> None:
    """The store of memories reads the shape back before it trusts a collection; a second creator hears 409."""
    client.create_collection("docs", vectors_config={"text": _FLAT}, metadata={"format": 1})
    client.update_collection("docs", metadata={"more": 2})
    config = client.get_collection("docs").config
    assert config.metadata == {"format": 1, "more": 2}
    assert config.params.vectors == {"text": _FLAT}
    assert [collection.name for collection in client.get_collections().collections] == ["docs"]
    with pytest.raises(UnexpectedResponse) as refused:
        client.create_collection("docs", vectors_config=_FLAT)
    assert refused.value.status_code == 409

    client.delete_collection("docs")
    assert not client.collection_exists("docs")
    with pytest.raises(UnexpectedResponse) as missing:
        client.count("docs")
    assert missing.value.status_code == 404


def test_the_version_that_it_names_is_one_that_the_client_accepts(store: VectorStore) -> None:
    """The client warns of a server that is two minor versions away from it."""
    named = httpx.get(store.url).json()["version"]
    assert is_compatible(importlib.metadata.version("qdrant-client"), named)


async def test_the_store_of_memories_works_on_it(store: VectorStore) -> None:
    """langgraph-store-qdrant unchanged: put, get, find by meaning, filter, list, expire, delete, twice set up."""
    client = AsyncQdrantClient(url=store.url, check_compatibility=False)
    embed = DeterministicFakeEmbedding(size=8)
    memories = AsyncQdrantStore(client, index={"dims": 8, "embed": embed, "fields": ["text"]}, ttl={})
    await memories.setup()
    await memories.setup()
    for number in range(5):
        await memories.aput(("memories", "acme", "ann"), f"k{number}", {"text": f"fact {number}", "n": number})
    await memories.aput(("memories", "acme", "bob"), "k", {"text": "fact 1", "n": 1})
    await memories.aput(("memories", "acme", "bob"), "old", {"text": "gone"}, ttl=-1)

    found = await memories.asearch(("memories", "acme", "ann"), query="fact 3", limit=2)
    assert found[0].key == "k3"
    assert {item.namespace for item in await memories.asearch(("memories", "acme", "ann"))} == {
        ("memories", "acme", "ann")
    }
    filtered = await memories.asearch(("memories", "acme", "ann"), filter={"n": {"$gte": 2, "$lt": 4}})
    assert {item.key for item in filtered} == {"k2", "k3"}
    paged = [await memories.asearch(("memories", "acme", "ann"), limit=2, offset=offset) for offset in (0, 2, 4)]
    assert len({item.key for page in paged for item in page}) == 5
    assert await memories.alist_namespaces(prefix=("memories", "acme")) == [
        ("memories", "acme", "ann"),
        ("memories", "acme", "bob"),
    ]
    assert await memories.sweep_ttl() == 1
    await memories.adelete(("memories", "acme", "ann"), "k3")
    assert await memories.aget(("memories", "acme", "ann"), "k3") is None
    await client.close()


def test_what_was_answered_outlives_sigkill(store: VectorStore, client: QdrantClient) -> None:
    """A supervisor restarts a dead process: nothing that a client was told is written may be missing then."""
    client.create_collection("docs", vectors_config=_FLAT)
    client.create_payload_index("docs", "tenant", models.PayloadSchemaType.KEYWORD)
    for number in range(40):
        client.upsert("docs", points(range(number * 5, number * 5 + 5), tenant="one"))
    client.delete("docs", models.PointIdsList(points=[0]))
    store.kill()
    store.start()
    assert client.count("docs").count == 199
    assert client.query_points("docs", vector(33), query_filter=of("one")).points[0].id == 33
    assert "tenant" in client.get_collection("docs").payload_schema


def test_a_kill_at_any_moment_loses_no_answered_write(store: VectorStore, client: QdrantClient) -> None:
    """Writers are under way when the process dies, five times over: each point that was answered is there, whole."""
    answered: set[int] = set()
    stop = threading.Event()

    def write(first: int) -> None:
        writer = QdrantClient(url=store.url, timeout=5, check_compatibility=False)
        number = first
        while not stop.is_set():
            try:
                writer.upsert("docs", points(range(number, number + 3), tenant="one"))
            except (ResponseHandlingException, UnexpectedResponse):
                continue
            answered.update(range(number, number + 3))
            number += 3
        writer.close()

    client.create_collection("docs", vectors_config=_FLAT)
    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 1_000_000)]
    for writer in writers:
        writer.start()
    try:
        for pause in (0.3, 0.11, 0.2, 0.05, 0.4):
            time.sleep(pause)
            store.kill()
            store.start()
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert len(answered) > 20
    found = client.retrieve("docs", sorted(answered), with_vectors=True)
    assert {point.id for point in found} == answered
    assert all(point.payload == {"number": point.id, "tenant": "one"} and point.vector for point in found)


def test_a_folder_does_not_grow_with_what_is_overwritten(store: VectorStore, client: QdrantClient) -> None:
    """Documents are indexed again and again for years on the same laptop."""
    client.create_collection("docs", vectors_config=_FLAT)

    def size() -> int:
        return sum(path.stat().st_blocks * 512 for path in store.folder.rglob("*") if path.is_file())

    sizes = []
    for _ in range(10):
        for _ in range(5):
            client.upsert("docs", points(range(200), text="x" * 500))
        sizes.append(size())
    assert sizes[-1] < 2 * sizes[1], sizes


def test_it_ends_at_sigterm_and_keeps_everything(store: VectorStore, client: QdrantClient) -> None:
    """An orderly restart loses nothing, also after refused writes and over several rounds."""
    client.create_collection("docs", vectors_config=_FLAT)
    for round_ in range(3):
        client.upsert("docs", points(range(round_ * 10, round_ * 10 + 10)))
        with pytest.raises(UnexpectedResponse):
            client.upsert("docs", [models.PointStruct(id=1, vector=[1.0])])
        store.stop()
        store.start()
    assert client.count("docs").count == 30


def test_a_half_made_collection_is_not_seen(store: VectorStore, client: QdrantClient) -> None:
    """A kill inside the making of a collection leaves a folder that the next start clears away."""
    client.create_collection("docs", vectors_config=_FLAT)
    store.stop()
    (store.folder / ".new-half").mkdir()
    (store.folder / ".new-half" / "collection.json").write_text("{")
    store.start()
    assert [collection.name for collection in client.get_collections().collections] == ["docs"]
    assert not (store.folder / ".new-half").exists()


def test_a_second_process_on_the_same_folder_is_refused(store: VectorStore) -> None:
    """Two owners would write over each other; the second says whose folder it is and ends."""
    second = subprocess.run(store.command(), capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert f"another process owns {store.folder}" in second.stderr
    assert "Traceback" not in second.stderr


def test_it_opens_to_other_machines_only_with_a_key(tmp_path: Path) -> None:
    """A store without a key on all interfaces would hand every memory to the network."""
    command = [*VectorStore(folder=tmp_path).command(), "--host", "0.0.0.0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert refused.returncode == 1
    assert "QDRANT__SERVICE__API_KEY" in refused.stderr


def test_with_a_key_only_its_holder_is_answered() -> None:
    """Probes need no key, everything else does; the client's own header and a bearer token both carry it."""
    with VectorStore(api_key="right") as store:
        assert httpx.get(f"{store.url}/readyz").status_code == 200
        assert httpx.get(f"{store.url}/collections").status_code == 401
        assert httpx.get(f"{store.url}/collections", headers={"api-key": "wrong"}).status_code == 401
        assert httpx.get(f"{store.url}/collections", headers={"api-key": "right"}).status_code == 200
        assert httpx.get(f"{store.url}/collections", headers={"Authorization": "Bearer right"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/collections/none", None, 404),
        ("PUT", "/collections/docs/points", "{", 400),
        ("PUT", "/collections/docs/points", '{"points": 3}', 400),
        ("PUT", "/collections/docs/points", '{"points": [{"id": "x", "vector": [1, 2]}]}', 400),
        ("PUT", "/collections/docs/points", '{"points": [{"id": 1, "vector": [1, 2]}]}', 400),
        ("PUT", "/collections/docs/points", '{"points": [{"id": 1, "vector": [NaN]}]}', 400),
        ("PUT", "/collections/docs/points", '{"points": [{"id": 1, "vector": {"no": [1]}}]}', 400),
        ("POST", "/collections/docs/points/query", '{"query": [1, 2]}', 400),
        ("POST", "/collections/docs/points/query", '{"query": {"fusion": "rrf"}}', 501),
        ("POST", "/collections/docs/points/query", '{"lookup_from": {"collection": "docs"}}', 501),
        ("POST", "/collections/docs/points/count", '{"filter": {"must": [{"key": "a", "geo_radius": {}}]}}', 501),
        ("POST", "/collections/docs/points/count", '{"filter": {"must": [{"key": "a[", "is_null": true}]}}', 400),
        ("POST", "/collections/docs/points/scroll", '{"limit": 0}', 400),
        ("POST", "/collections/docs/points/scroll", "[]", 400),
        ("POST", "/collections/docs/points/recommend", "{}", 501),
        ("PUT", "/collections/..%2fescape", '{"vectors": {"size": 4, "distance": "Cosine"}}', 501),
        ("PUT", "/collections/.hidden", '{"vectors": {"size": 4, "distance": "Cosine"}}', 400),
        ("PUT", "/collections/odd", '{"vectors": {"size": 4, "distance": "Hamming"}}', 400),
        ("PUT", "/collections/odd", '{"vectors": {"size": 0, "distance": "Dot"}}', 400),
        ("POST", "/aliases", "{}", 501),
    ],
)
def test_a_bad_request_gets_qdrants_kind_of_error(
    used_store: VectorStore, method: str, path: str, body: str | None, status: int
) -> None:
    """The client turns `status.error` into its exception; what is not known is refused rather than answered wrongly."""
    answer = httpx.request(method, f"{used_store.url}{path}", content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["status"]["error"]
    assert httpx.get(f"{used_store.url}/collections/docs").status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_store_is_small(store: VectorStore) -> None:
    """It stands beside api, worker, proxy and Redis on a laptop; Pulumi must never be pulled into it."""
    status = Path(f"/proc/{store.pid}/status").read_text()
    resident_kb = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kb < 90_000, f"{resident_kb} kB resident when idle"
