"""What a graph streams, as JSON for the event stream and for the run's result."""

from __future__ import annotations

from typing import Any

import orjson
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, BaseMessageChunk
from pydantic import BaseModel

_META = ("langgraph_node", "langgraph_step", "checkpoint_ns", "tags")
"""What a client may want to know of a token's origin; the rest of LangGraph's metadata is ours."""

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
_DEEPEST = 100
"""Levels of nesting that are written where not all can be."""


def event_data(namespace: tuple[str, ...], mode: str, payload: Any) -> bytes:
    """The data of one event: {"ns": […], "data": …}; a token's data is [chunk, where it came from]."""
    if mode == "messages":
        message, metadata = payload
        data: Any = [message_json(message), {name: metadata[name] for name in _META if name in metadata}]
    else:
        data = payload
    return encode({"ns": namespace, "data": data})


def encode(value: Any) -> bytes:
    """JSON of anything a graph may hand out; what has no JSON form is named by its class, never printed."""
    try:
        return orjson.dumps(value, default=_fallback, option=_OPTIONS)
    except TypeError:  # a part of it cannot be written, and the rest must not be lost with it
        return orjson.dumps(_writable(value, 0), default=_fallback, option=_OPTIONS)


def plain(value: dict[str, Any]) -> dict[str, Any]:
    """The same as JSON values only."""
    found: dict[str, Any] = orjson.loads(encode(value))
    return found


def message_json(message: BaseMessage) -> dict[str, Any]:
    """A message or chunk: type, id, content, and what is set of name, tool calls, usage and model."""
    found: dict[str, Any] = {"type": message.type, "id": message.id, "content": message.content}
    if isinstance(message, BaseMessageChunk):
        found["type"] = message.__class__.__name__
    if message.name:
        found["name"] = message.name
    if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
        found["tool_call_chunks"] = message.tool_call_chunks
    elif isinstance(message, AIMessage) and message.tool_calls:
        found["tool_calls"] = message.tool_calls
    if isinstance(message, AIMessage) and message.usage_metadata:
        found["usage_metadata"] = message.usage_metadata
    model = message.response_metadata.get("model_name")
    if model:
        found["model"] = model
    tool_call_id = getattr(message, "tool_call_id", None)
    if tool_call_id:
        found["tool_call_id"] = tool_call_id
    return found


def _writable(value: Any, depth: int) -> Any:
    """The same without what JSON cannot hold: half characters, integers beyond 64 bits, bottomless nesting."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if depth > _DEEPEST:
        return f"<{type(value).__name__}>"
    if isinstance(value, dict):
        return {_writable_key(key): _writable(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_writable(part, depth + 1) for part in value]
    if isinstance(value, BaseMessage | BaseModel):
        return _writable(_fallback(value), depth + 1)
    try:
        orjson.dumps(value, default=_fallback, option=_OPTIONS)
    except TypeError:
        return f"<{type(value).__name__}>"
    return value


def _writable_key(key: Any) -> Any:
    if isinstance(key, str):
        return key.encode("utf-8", "replace").decode()
    try:
        orjson.dumps({key: None}, option=_OPTIONS)
    except TypeError:
        return f"<{type(key).__name__}>"
    return key


def _fallback(value: Any) -> Any:
    if isinstance(value, BaseMessage):
        return message_json(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return f"<{type(value).__name__}>"
