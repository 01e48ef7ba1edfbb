"""The built-in agent (thin; grows)."""

from __future__ import annotations

from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from app.infra.context import RunContext
from app.infra.settings import settings
from app.models.clients import Clients
from app.models.registry import Role
from app.workflows.state import AgentState, new_turn


def make_graph() -> CompiledStateGraph[Any, Any, Any, Any]:
    """The agent over the process's settings; opens no connection."""
    models = Clients(settings().models)
    models.registry.check(settings().models)

    async def answer(state: AgentState) -> dict[str, Any]:
        reply = await models.chat(models.registry.roles[Role.ORCHESTRATOR]).ainvoke(state["messages"][-8:])
        return {**new_turn(), "messages": [reply]}

    graph = StateGraph(AgentState, context_schema=RunContext)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile(name="agent")
