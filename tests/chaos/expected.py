"""The execution without faults: the same graph, the same messages, LangGraph's own saver in memory, no pauses."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from tests.chaos.graphs import build
from tests.chaos.history import Expected
from tests.chaos.outside import Memory
from tests.chaos.plan import Talk


async def expect(talk: Talk) -> Expected:
    """What `talk` comes to."""
    outside = Memory()
    graph = build(outside, hurry=True)
    graph.checkpointer = InMemorySaver()
    config: RunnableConfig = {"configurable": {"thread_id": talk.name}}
    answers: dict[str, str] = {}
    values: dict[str, Any] = {}
    for turn in talk.turns:
        values = await graph.ainvoke({"messages": [HumanMessage(turn.job.message)]}, config, durability="exit")
        answers[turn.tag] = values["messages"][-1].text
    calls: dict[str, dict[str, str]] = {turn.tag: {} for turn in talk.turns}
    for effect in outside.effects:
        calls[effect.tag][effect.call] = effect.tool
    return Expected(comparable(values), answers, calls)


def comparable(values: dict[str, Any]) -> dict[str, Any]:
    """A state without what differs between two executions: the ids of messages."""
    found = {name: value for name, value in values.items() if name != "messages"}
    found["messages"] = [
        (message.type, message.text) for message in values.get("messages", []) if isinstance(message, BaseMessage)
    ]
    return found
