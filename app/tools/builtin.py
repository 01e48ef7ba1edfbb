"""The built-in tools: the one place where they are chosen and declared."""

from __future__ import annotations

from typing import Any

from langgraph.store.base import BaseStore

from app.infra.settings import Settings
from app.memory.documents import DocumentIndex
from app.memory.embeddings import EmbeddingModel
from app.memory.memories import Memories
from app.memory.qdrant import open_qdrant
from app.tools.api_client import http_tools
from app.tools.database import database_tool, open_reader
from app.tools.guarded_http import GuardedHttp
from app.tools.memory import memory_tools
from app.tools.registry import ToolRegistry
from app.tools.search import search_tool
from app.tools.tool import Tool


def builtin_tools(settings: Settings, *, store: BaseStore | None, embeddings: EmbeddingModel | None) -> ToolRegistry:
    """All tools that the settings give something to work on; one that could only fail is not offered.

    `store` and `embeddings` stay their owner's; what else is opened here closes with the registry. Without `store`
    there is no memory, without HTTP_ALLOWED_HOSTS no HTTP. Raises `ConfigurationError` for wrong settings.
    """
    chosen = settings.tools
    qdrant = open_qdrant(settings) if embeddings is not None else None
    documents = DocumentIndex(chosen.documents_path, corpus=settings.release, qdrant=qdrant, embeddings=embeddings)
    tools: list[Tool[Any]] = [
        search_tool(documents),
        database_tool(open_reader(chosen), timeout_seconds=chosen.database_timeout_seconds),
    ]
    if chosen.http_allowed_hosts:
        http = GuardedHttp(
            chosen.http_allowed_hosts, timeout_seconds=chosen.http_timeout_seconds, max_bytes=chosen.http_max_bytes
        )
        tools += http_tools(http, chosen.http_allowed_hosts, timeout_seconds=chosen.http_timeout_seconds)
    if store is not None:
        tools += memory_tools(Memories(store))
    closing = [documents.close] if qdrant is None else [documents.close, qdrant.close]
    return ToolRegistry(tools, warming=[documents.warm], closing=closing)
