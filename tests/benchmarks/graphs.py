"""Graphs of the benchmarks: one node, an in-process model that answers at once or as a clock; nodes that only sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

from tests.support.graphs import State, WordsModel, one_node

TOKENS = 20
TOKEN_SECONDS = 0.05
NAP_SECONDS = 0.2
STEP_SECONDS = 0.1
WALK_STEPS = 600


class ClockModel(WordsModel):
    """Says the time (ns since the epoch) at each token: who reads a token knows how long it was on its way."""

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for _ in range(TOKENS):
            await asyncio.sleep(TOKEN_SECONDS)
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{time.time_ns()} "))


def _napping() -> Any:
    async def sleep(state: State) -> dict[str, Any]:
        await asyncio.sleep(NAP_SECONDS)
        return {"messages": [AIMessage("rested")]}

    graph = StateGraph(State)
    graph.add_node("sleep", sleep)
    graph.add_edge(START, "sleep")
    graph.add_edge("sleep", END)
    return graph.compile()


def _walking() -> Any:
    async def step(state: State) -> dict[str, Any]:
        done = state.get("steps", 0) + 1
        await asyncio.sleep(STEP_SECONDS)
        get_stream_writer()({"step": done})
        return {"steps": done}

    graph = StateGraph(State)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: "step" if state["steps"] < WALK_STEPS else END, ["step", END])
    return graph.compile()


instant = one_node(WordsModel())
clock = one_node(ClockModel())
nap = _napping()
"""0.2 s in which nothing is done: what a run spends on a model or a tool."""
walk = _walking()
"""A minute of steps of 0.1 s, each with an event: long enough to be killed in."""
