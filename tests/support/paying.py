"""A graph that pays once through the registry, registered in `tests/support/paying.json`.

Each payment is a line in the file that PAYMENTS names, with the process that made it: what the outside world saw. The
tool then waits for as long as PAYMENTS.hold exists.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel

from app.infra.context import RunContext
from app.tools.registry import ToolRegistry
from app.tools.tool import Risk, Tool, ToolCall, ToolResult


class Payment(BaseModel):
    to: str


async def _pay(arguments: Payment, _call: ToolCall) -> ToolResult:
    path = Path(os.environ["PAYMENTS"])
    with path.open("a") as book:  # noqa: ASYNC230 - a line of a few bytes
        book.write(f"{os.getpid()} {arguments.to}\n")
    while path.with_suffix(".hold").exists():  # noqa: ASYNC110 - another process takes it away
        await asyncio.sleep(0.02)
    return ToolResult(ok=True, text=f"paid {arguments.to}")


TOOLS = ToolRegistry([Tool("pay", "Pays.", Payment, _pay, Risk.CRITICAL, idempotent=False)])


async def _node(state: MessagesState, runtime: Runtime[RunContext]) -> dict[str, Any]:
    assert runtime.execution_info is not None
    paid = await TOOLS.invoke(
        "pay",
        {"to": state["messages"][-1].text},
        call_id="c1",
        task_id=runtime.execution_info.task_id,
        context=runtime.context,
    )
    return {"messages": [AIMessage(paid.text)]}


_graph = StateGraph(MessagesState, context_schema=RunContext)
_graph.add_node("pay", _node)
_graph.add_edge(START, "pay")
_graph.add_edge("pay", END)
paying = _graph.compile()
