"""The graph that chaos runs: what it does is in the message, so an execution without faults can be computed.

    read -> branch (several at once) -> work (tools in turn) -> think (may block the event loop) -> answer (streams)

A message is JSON, see `tests.chaos.plan.Job`. Every step adds a line to `log` and one to `total`: a step that was
applied twice, or not at all, shows in the state.
"""

from __future__ import annotations

import asyncio
import json
import operator
import os
import time
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.runtime import Runtime
from langgraph.types import Send
from pydantic import BaseModel

from app.infra.context import RunContext
from app.tools.registry import Risk, Tool, ToolCall, ToolRegistry, ToolResult
from tests.chaos.outside import Effect, Held, Outside, Store
from tests.support.graphs import WordsModel

TRANSFER_SECONDS = 4.0
"""Longest that a transfer is under way, a freeze of its worker included: from then on a look-up that finds nothing is
believed. Above the longest freeze of `tests.chaos.plan`; nothing could be promised of a call that wakes up later."""


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    job: dict[str, Any]
    log: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]


class Arguments(BaseModel):
    """What a tool is asked: `call` names the effect within the turn, `pause` is how long the answer takes."""

    tag: str
    call: str
    pause: float


class Branch(TypedDict):
    tag: str
    step: dict[str, Any]


def chaos() -> Any:
    """The graph over the store that CHAOS_STORE_URL names: what `langgraph.json` registers."""
    return build(Store(os.environ["CHAOS_STORE_URL"]))


def build(outside: Outside, *, hurry: bool = False) -> Any:
    """The graph over `outside`; `hurry` leaves out every pause, for the execution without faults."""
    tools = ToolRegistry(_tools(outside, hurry=hurry))

    def note(runtime: Runtime[RunContext]) -> None:
        context = runtime.context
        if context is not None:
            outside.held(Held(context.run_id, context.fence.epoch, os.getpid()))

    async def use(tag: str, step: dict[str, Any], runtime: Runtime[RunContext]) -> str:
        info = runtime.execution_info
        result = await tools.invoke(
            step["tool"],
            {"tag": tag, "call": step["call"], "pause": step["pause"]},
            call_id=step["call"],
            task_id="" if info is None else info.task_id,
            context=runtime.context,
        )
        return result.text

    async def read(state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        note(runtime)
        job = json.loads(state["messages"][-1].text)
        return {"job": job, "log": [f"{job['tag']} read"], "total": 1}

    def spread(state: State) -> list[Send] | str:
        job = state["job"]
        return [Send("branch", Branch(tag=job["tag"], step=step)) for step in job["branches"]] or "work"

    async def branch(state: Branch, runtime: Runtime[RunContext]) -> dict[str, Any]:
        note(runtime)
        runtime.stream_writer({"branch": state["step"]["call"]})
        text = await use(state["tag"], state["step"], runtime)
        return {"log": [f"{state['tag']} {text}"], "total": 1}

    async def work(state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        note(runtime)
        job = state["job"]
        lines = [f"{job['tag']} {await use(job['tag'], step, runtime)}" for step in job["work"]]
        return {"log": lines, "total": len(lines)}

    async def think(state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        note(runtime)
        job = state["job"]
        if job["block"] and not hurry:
            time.sleep(job["block"])  # noqa: ASYNC251 - what a careless node does: the loop stands longer than a lease
        return {"log": [f"{job['tag']} think"], "total": 1}

    async def answer(state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        note(runtime)
        job = state["job"]
        words = " ".join(f"{job['tag']}.{number}" for number in range(job["words"]))
        model = WordsModel(pause=0.0 if hurry else job["pace"])
        said = await model.ainvoke([HumanMessage(words)])
        return {"messages": [said], "log": [f"{job['tag']} answer"], "total": 1}

    graph = StateGraph(State, context_schema=RunContext)
    graph.add_node("read", read)
    graph.add_node("branch", branch, input_schema=Branch)
    graph.add_node("work", work)
    graph.add_node("think", think)
    graph.add_node("answer", answer)
    graph.add_edge(START, "read")
    graph.add_conditional_edges("read", spread, ["branch", "work"])
    graph.add_edge("branch", "work")
    graph.add_edge("work", "think")
    graph.add_edge("think", "answer")
    graph.add_edge("answer", END)
    return graph.compile()


def _tools(outside: Outside, *, hurry: bool) -> list[Tool[Any]]:
    def effect_of(arguments: Arguments, call: ToolCall) -> Effect:
        epoch = str(call.context.fence.epoch) if call.context else ""
        return Effect(call.key, arguments.tag, arguments.call, call.tool, os.getpid(), epoch)

    async def do(arguments: Arguments, call: ToolCall) -> ToolResult:
        # The effect comes first, then the wait for the answer: that is where a crash leaves the outcome unknown.
        result = f"{call.tool} {arguments.call} done"
        outside.apply(effect_of(arguments, call), result)
        if not hurry:
            await asyncio.sleep(arguments.pause)
        return ToolResult(ok=True, text=result)

    async def look_up(arguments: Arguments, call: ToolCall) -> ToolResult | None:
        result = outside.find(call.key)
        return None if result is None else ToolResult(ok=True, text=result)

    return [
        Tool(
            name="put",
            description="Write a value under the call's key: the same call again writes the same.",
            arguments=Arguments,
            call=do,
            risk=Risk.HIGH,
            idempotent=True,
        ),
        Tool(
            name="charge",
            description="Charge a card: twice is once too often, and nobody can ask whether it was done.",
            arguments=Arguments,
            call=do,
            risk=Risk.CRITICAL,
            idempotent=False,
        ),
        Tool(
            name="transfer",
            description="Move money: twice is once too often, but the bank can be asked.",
            arguments=Arguments,
            call=do,
            risk=Risk.CRITICAL,
            idempotent=False,
            timeout_seconds=TRANSFER_SECONDS,
            lookup=look_up,
        ),
    ]
