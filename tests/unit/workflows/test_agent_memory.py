"""What is known of a user: found again for that user's questions, and kept through the run's own store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore

from app.infra.context import RunContext
from app.infra.errors import Unavailable
from app.infra.fence import Fence
from app.infra.ids import STABLE, RunId, TenantId, ThreadId, UserId
from app.memory.memories import Memories
from app.workflows.graph import build_graph
from app.workflows.run_store import RunStore
from tests.support.journal import Journal
from tests.unit.workflows.conftest import Desk

TENANT = TenantId("acme")


def run_of(user: str) -> RunContext:
    run = RunId("r")
    return RunContext(run, ThreadId("t"), TENANT, UserId(user), STABLE, 1, Fence(run, 1), Journal())


async def ask(desk: Desk, store: BaseStore | None, user: str) -> list[str]:
    """What the model is shown when `user` asks for their name."""
    desk.classifier.intent = "memory"
    graph = build_graph(desk.services).compile(store=store)
    await graph.ainvoke({"messages": [HumanMessage("What is my name?")]}, context=run_of(user))
    return [message.text for asked in desk.models.model.asked for message in asked]


async def test_what_a_user_told_answers_that_user(desk: Callable[..., Desk]) -> None:
    """In any thread; and nobody else, of the same tenant either."""
    store = InMemoryStore()
    await Memories(store).remember(TENANT, UserId("ann"), "My name is Ann")
    assert any("My name is Ann" in text for text in await ask(desk("Your name is Ann.", plans=False), store, "ann"))
    assert await ask(desk(plans=False), store, "bob") == [], "nothing is known of Bob, so no model is asked"


@pytest.mark.parametrize("intent", ["data", "documents", "smalltalk"])
async def test_a_remembered_fact_answers_whatever_the_question_is_taken_for(
    desk: Callable[..., Desk], intent: str
) -> None:
    """ "Which tent is my favourite?" sounds like the product table."""
    store = InMemoryStore()
    await Memories(store).remember(TENANT, UserId("ann"), "my favourite tent is the Alpine Tent.")
    made = desk("Your favourite is the Alpine Tent.", plans=False, small=True)
    made.classifier.intent = intent
    graph = build_graph(made.services).compile(store=store)
    asked: Any = {"messages": [HumanMessage("Which tent is my favourite?")]}
    values = await graph.ainvoke(asked, context=run_of("ann"))
    assert values["messages"][-1].text == "Your favourite is the Alpine Tent."
    assert made.calls == [], "nothing need be looked up"


async def test_an_outage_of_the_memory_costs_only_the_memory(desk: Callable[..., Desk]) -> None:
    """The question is still answered as far as it can be."""

    class Away(InMemoryStore):
        async def abatch(self, ops: Any) -> Any:
            raise Unavailable("Qdrant does not answer")

    assert await ask(desk(plans=False), Away(), "ann") == []


async def test_tools_reach_the_store_of_the_run_they_work_for() -> None:
    """They are made once, before any run; the store is the worker's."""
    store, kept = InMemoryStore(), Memories(RunStore())

    async def node(state: MessagesState) -> dict[str, Any]:
        await kept.remember(TENANT, UserId("ann"), "fact")
        return {}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    await graph.compile(store=store).ainvoke({"messages": []})
    assert [memory.text for memory in await Memories(store).list(TENANT, UserId("ann"))] == ["fact"]
    with pytest.raises(Unavailable, match="long-term memory is off"):
        await graph.compile().ainvoke({"messages": []})


async def test_outside_a_run_there_is_no_store() -> None:
    """Said as what it is, not as a missing variable of LangGraph's."""
    with pytest.raises(Unavailable):
        await Memories(RunStore()).list(TENANT, UserId("ann"))
