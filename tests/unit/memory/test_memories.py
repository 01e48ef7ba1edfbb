"""What users asked to be remembered stays theirs. Over LangGraph's store in memory."""

from __future__ import annotations

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langgraph.store.memory import InMemoryStore

from app.infra.context import RunContext
from app.infra.errors import Unavailable
from app.infra.fence import Fence
from app.infra.ids import Release, RunId, TenantId, ThreadId, UserId
from app.memory.memories import MAX_CHARS, Memories, MemoryNotFound
from app.tools.memory import memory_tools
from app.tools.registry import ToolRegistry
from tests.support.journal import Journal

_ACME = TenantId("acme")
_ANN, _BOB = UserId("ann"), UserId("bob")


@pytest.fixture
def memories() -> Memories:
    """Memories over an empty store that searches by vectors."""
    index = {"dims": 8, "embed": DeterministicFakeEmbedding(size=8), "fields": ["text"]}
    return Memories(InMemoryStore(index=index))  # type: ignore[arg-type]


def run_of(tenant: str, user: str, thread: str) -> RunContext:
    fence = Fence(RunId("r"), 1)
    release = Release("stable")
    return RunContext(RunId("r"), ThreadId(thread), TenantId(tenant), UserId(user), release, 1, fence, Journal())


async def texts(memories: Memories, tenant: str, user: str) -> set[str]:
    """Everything that this user can find, by either way."""
    listed = await memories.list(TenantId(tenant), UserId(user))
    recalled = await memories.recall(TenantId(tenant), UserId(user), "tea", limit=20)
    assert {memory.text for memory in listed} == {memory.text for memory in recalled}
    return {memory.text for memory in listed}


@pytest.mark.parametrize(
    ("tenant", "user"),
    [
        ("acme", "bob"),
        ("other", "ann"),
        ("acme", "an"),
        ("acme", "ann2"),
        ("acme", ""),
        ("acm", "eann"),
        ("acme.ann", "ann"),
        ("acme", "ann.x"),
        ("acme", "*"),
        ("acme", "ANN"),
        ("acme", "../acme/ann"),
        ("memories", "acme"),
    ],
)
async def test_a_memory_is_found_by_its_tenant_and_user_alone(memories: Memories, tenant: str, user: str) -> None:
    """The one promise that, broken once, ends a product: also for names that are nearly the same."""
    await memories.remember(_ACME, _ANN, "Ann drinks tea")
    assert await texts(memories, tenant, user) == set()
    await memories.remember(TenantId(tenant), UserId(user), "Somebody drinks tea")
    assert await texts(memories, tenant, user) == {"Somebody drinks tea"}
    assert await texts(memories, "acme", "ann") == {"Ann drinks tea"}


async def test_nobody_deletes_the_memory_of_another(memories: Memories) -> None:
    """An id that was seen somewhere must open nothing."""
    kept = await memories.remember(_ACME, _ANN, "Ann drinks tea")
    with pytest.raises(MemoryNotFound):
        await memories.delete(_ACME, _BOB, kept.id)
    assert await memories.delete_all(_ACME, _BOB) == 0
    assert await texts(memories, "acme", "ann") == {"Ann drinks tea"}


async def test_remembering_twice_keeps_one(memories: Memories) -> None:
    """A step that is run again after a crash must not double what the user sees; spaces do not make another text."""
    first = await memories.remember(_ACME, _ANN, "Ann drinks tea")
    again = await memories.remember(_ACME, _ANN, "  Ann  drinks\ntea ")
    assert first == again
    assert len(await memories.list(_ACME, _ANN)) == 1


async def test_memories_are_listed_and_deleted(memories: Memories) -> None:
    """A user's right: see what is kept, and have it gone."""
    for number in range(5):
        await memories.remember(_ACME, _ANN, f"fact {number}")
    page = await memories.list(_ACME, _ANN, limit=2, offset=4)
    assert len(page) == 1
    await memories.delete(_ACME, _ANN, page[0].id)
    assert await memories.delete_all(_ACME, _ANN) == 4
    assert await memories.list(_ACME, _ANN) == []


@pytest.mark.parametrize("text", ["", "   ", "x" * (MAX_CHARS + 1)])
async def test_nothing_and_novels_are_not_remembered(memories: Memories, text: str) -> None:
    """A memory is a fact for a prompt."""
    with pytest.raises(ValueError, match="characters"):
        await memories.remember(_ACME, _ANN, text)


async def test_without_a_store_the_fix_is_said() -> None:
    """A deployment without Qdrant has no memory; the api answers 503 with this text."""
    memories = Memories(None)
    with pytest.raises(Unavailable, match="QDRANT_URL"):
        await memories.list(_ACME, _ANN)


async def test_the_tools_know_the_user_from_the_run_only(memories: Memories) -> None:
    """A model can be talked into naming another user: there is no argument to do it with."""
    registry = ToolRegistry(memory_tools(memories))
    kept = await registry.invoke(
        "remember", {"text": "Ann drinks tea"}, call_id="c", task_id="t", context=run_of("acme", "ann", "one")
    )
    assert kept.ok
    forged = await registry.invoke(
        "recall", {"query": "tea", "user": "ann"}, call_id="c", task_id="t", context=run_of("acme", "bob", "x")
    )
    assert (forged.ok, "user: Extra inputs" in forged.text) == (False, True)
    for user, expected in (("ann", "- Ann drinks tea"), ("bob", "Nothing is remembered about this user.")):
        context = run_of("acme", user, "two")
        found = await registry.invoke("recall", {"query": "tea"}, call_id="c", task_id="t", context=context)
        assert found.text == expected
    outside = await registry.invoke("recall", {"query": "tea"}, call_id="c", task_id="t", context=None)
    assert not outside.ok
