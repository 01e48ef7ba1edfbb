"""The tools that remember and recall. Whose memories they are comes from the run alone, never from arguments."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.infra.context import RunContext
from app.infra.errors import Unavailable
from app.memory.memories import MAX_CHARS, Memories
from app.tools.tool import Risk, Source, Tool, ToolCall, ToolError, ToolResult

_TIMEOUT_SECONDS = 15.0


class RememberArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=MAX_CHARS, description="One fact, as a sentence that stands alone.")


class RecallArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=500, description="What to look for, in plain words.")
    limit: int = Field(5, ge=1, le=20, description="Memories to return at most.")


def memory_tools(memories: Memories) -> list[Tool[RememberArguments] | Tool[RecallArguments]]:
    """`remember` and `recall` over `memories`."""

    async def remember(arguments: RememberArguments, call: ToolCall) -> ToolResult:
        run = _run(call)
        try:
            memory = await memories.remember(run.tenant, run.user, arguments.text)
        except (Unavailable, ValueError) as error:
            raise ToolError(str(error)) from error
        return ToolResult(ok=True, text=f"Remembered: {memory.text}", data={"id": memory.id})

    async def recall(arguments: RecallArguments, call: ToolCall) -> ToolResult:
        run = _run(call)
        try:
            found = await memories.recall(run.tenant, run.user, arguments.query, limit=arguments.limit)
        except Unavailable as error:
            raise ToolError(str(error)) from error
        text = "\n".join(f"- {memory.text}" for memory in found) or "Nothing is remembered about this user."
        sources = [
            Source(title="Memory", uri=f"memory:{memory.id}", text=memory.text, score=round(memory.score or 0.0, 6))
            for memory in found
        ]
        return ToolResult(ok=True, text=text, sources=sources)

    return [
        Tool(
            name="remember",
            description="Keeps a fact about the user for later conversations. Use it when the user asks to remember.",
            arguments=RememberArguments,
            call=remember,
            risk=Risk.LOW,
            idempotent=True,
            timeout_seconds=_TIMEOUT_SECONDS,
        ),
        Tool(
            name="recall",
            description="Finds what the user asked to be remembered in earlier conversations.",
            arguments=RecallArguments,
            call=recall,
            risk=Risk.LOW,
            idempotent=True,
            timeout_seconds=_TIMEOUT_SECONDS,
        ),
    ]


def _run(call: ToolCall) -> RunContext:
    if call.context is None:
        raise ToolError("there is no user to remember for outside a run", fix="go on without memory")
    return call.context
