"""The tool that searches the documents."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.memory.documents import DocumentIndex, Found
from app.tools.tool import Risk, Source, Tool, ToolCall, ToolError, ToolResult


class SearchArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=500, description="What to look for, in plain words.")
    limit: int = Field(4, ge=1, le=10, description="Passages to return at most.")


def search_tool(index: DocumentIndex, *, timeout_seconds: float = 30.0) -> Tool[SearchArguments]:
    """`search_documents` over `index`. `data`: `degraded`, why meaning was left out; empty when it was not."""

    async def search(arguments: SearchArguments, _call: ToolCall) -> ToolResult:
        if await index.empty():
            raise ToolError("there are no documents to search", fix="go on without them")
        return _result(await index.search(arguments.query, arguments.limit))

    return Tool(
        name="search_documents",
        description="Finds passages of the team's documents that answer a question, with their sources.",
        arguments=SearchArguments,
        call=search,
        risk=Risk.LOW,
        idempotent=True,
        timeout_seconds=timeout_seconds,
    )


def _result(found: Found) -> ToolResult:
    sources = [
        Source(title=hit.passage.title, uri=hit.passage.uri, text=hit.passage.text, score=round(hit.score, 6))
        for hit in found.hits
    ]
    parts = [f"[{number}] {source.title} ({source.uri})\n{source.text}" for number, source in enumerate(sources, 1)]
    if not parts:
        parts.append("No passage fits. Ask in other words, or say that the documents do not tell.")
    if found.degraded:
        parts.append(f"(Searched by word only: {found.degraded}.)")
    return ToolResult(ok=True, text="\n\n".join(parts), data={"degraded": found.degraded}, sources=sources)
