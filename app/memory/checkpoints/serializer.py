"""How values become bytes: LangGraph's msgpack serializer, closed.

Nothing is ever pickled, and no type is built from stored bytes unless it is in langgraph-checkpoint's list of safe
types (messages, dates, ids, `Send`, `Interrupt` …), named in `allowed`, or part of the graph's own schemas: LangGraph
adds those itself through `with_allowlist` when LANGGRAPH_STRICT_MSGPACK is set before it is imported. Any other
object comes back as the plain data that it was made of, with a warning in the log.
"""

from __future__ import annotations

from collections.abc import Iterable

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer


def serializer(allowed: Iterable[type | tuple[str, str]] = ()) -> JsonPlusSerializer:
    """A serializer that builds safe types and `allowed` ones: classes, or pairs of module and name."""
    names = [(kind.__module__, kind.__name__) if isinstance(kind, type) else kind for kind in allowed]
    return JsonPlusSerializer(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=names or None)
