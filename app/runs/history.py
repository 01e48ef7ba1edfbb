"""A thread's messages, read from its last checkpoint without a graph."""

from __future__ import annotations

from typing import Any

from app.infra.ids import ThreadId
from app.infra.keys import Keys
from app.infra.settings import settings


async def history(client: Any, keys: Keys, thread_id: ThreadId) -> list[dict[str, Any]]:
    """Messages as JSON, oldest first; [] before the first checkpoint. Raises `RedisUnavailable`, `CheckpointSealed`."""
    # Imported here: reading checkpoints needs LangChain's messages, 40 MB that an api process may never use.
    from langchain_core.messages import BaseMessage

    from app.memory.checkpoints import RedisSaver, open_serializer
    from app.runs.encoding import message_json, plain

    serde = open_serializer(settings().runs)
    saver = RedisSaver(client, keys, fence=None, ttl_seconds=1, serde=serde)  # writes nothing
    saved = await saver.aget_tuple({"configurable": {"thread_id": thread_id}})
    if saved is None:
        return []
    messages = saved.checkpoint["channel_values"].get("messages", [])
    found: list[dict[str, Any]] = plain(
        {"messages": [message_json(message) for message in messages if isinstance(message, BaseMessage)]}
    )["messages"]
    return found
