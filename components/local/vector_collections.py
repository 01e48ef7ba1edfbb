"""The collections of the local vector store: a folder each, a shard of Qdrant Edge each, and what may be asked of one.

Everything here blocks and is for one thread. Layout: DIR/<name>/collection.json, what its creator said, and
DIR/<name>/shard/, which is Qdrant Edge's own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson
import qdrant_edge as edge

from components.local import vector_wire as wire
from components.local.vector_wire import BadRequest, Json, Unsupported

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$")
_LAYOUT_OPTIONS: Final = (
    "shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload", "hnsw_config",
    "optimizers_config", "wal_config", "strict_mode_config",
)  # fmt: skip
"""How a server spreads and tunes a collection: taken, and without meaning on one machine."""
_COMPLETED: Final = {"operation_id": 0, "status": "completed"}


class Missing(Exception):
    """There is no such collection or point (404)."""


class Taken(Exception):
    """The collection exists already (409)."""


class Collection:
    """One collection: a shard of Qdrant Edge and what its creator said of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.config: Json = orjson.loads((folder / "collection.json").read_bytes())
        self.shard = edge.EdgeShard.load(str(folder / "shard"))
        self.shard.optimize()  # drops what was deleted; builds no graph (see vector_wire)
        self.unflushed = False

    @staticmethod
    def create(folder: Path, config: Json) -> None:
        """Make it whole in a folder beside, then move it into place: there is never half a collection."""
        half = folder.with_name(f".new-{folder.name}")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        edge.EdgeShard.create(str(half / "shard"), wire.edge_config(config.get("vectors"))).close()
        (half / "collection.json").write_bytes(orjson.dumps(config))
        half.rename(folder)

    def describe(self) -> Json:
        info = self.shard.info()
        schema = {
            name: {"data_type": _name_of(index.data_type), "points": index.points}
            for name, index in info.payload_schema.items()
        }
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "indexed_vectors_count": info.indexed_vectors_count,
            "segments_count": info.segments_count,
            "config": {
                "params": {"vectors": self.config["vectors"], "shard_number": 1, "replication_factor": 1},
                "hnsw_config": {"m": 0, "ef_construct": 100, "full_scan_threshold": 10_000},
                "optimizer_config": {"default_segment_number": 1, "flush_interval_sec": 0},
                "metadata": self.config.get("metadata"),
            },
            "payload_schema": schema,
        }

    def set_metadata(self, metadata: Json) -> None:
        self.config["metadata"] = {**(self.config.get("metadata") or {}), **metadata}
        fresh = self._folder / "collection.json.new"
        fresh.write_bytes(orjson.dumps(self.config))
        fresh.replace(self._folder / "collection.json")

    def update(self, operation: edge.UpdateOperation) -> Json:
        self.unflushed = True
        self.shard.update(operation)
        return dict(_COMPLETED)

    def flush(self) -> None:
        """Put on disk what was written."""
        if self.unflushed:
            self.shard.flush()
            self.unflushed = False


def _name_of(kind: Any) -> str:
    """`PayloadSchemaType.Keyword` as Qdrant writes it: `keyword`."""
    return str(kind).rsplit(".", 1)[-1].lower()


class Collections:
    """All collections of a folder. Not for use from several threads at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for leftover in (*root.glob(".new-*"), *root.glob(".gone-*")):
            shutil.rmtree(leftover)
        self._open = {path.parent.name: Collection(path.parent) for path in sorted(root.glob("*/collection.json"))}

    def names(self) -> list[str]:
        return sorted(self._open)

    def find(self, name: str) -> Collection:
        """The collection; raises `Missing`."""
        if name not in self._open:
            raise Missing(f"Not found: Collection `{name}` doesn't exist!")
        return self._open[name]

    def exists(self, name: str) -> bool:
        return name in self._open

    def create(self, name: str, body: Any) -> bool:
        if not _NAME.match(name):
            raise BadRequest("collection name: 1 to 255 letters, digits, _, . and - are needed")
        if name in self._open:
            raise Taken(f"Wrong input: Collection `{name}` already exists!")
        given = wire.fields(body, "collection", "vectors", "metadata", *_LAYOUT_OPTIONS)
        Collection.create(self._root / name, {key: given[key] for key in ("vectors", "metadata") if key in given})
        self._open[name] = Collection(self._root / name)
        return True

    def delete(self, name: str) -> bool:
        collection = self._open.pop(name, None)
        if collection is None:
            return False
        collection.shard.close()
        gone = self._root / f".gone-{name}"
        (self._root / name).rename(gone)
        shutil.rmtree(gone)
        return True

    def unflushed(self) -> bool:
        """Whether something was written that is not on disk yet."""
        return any(collection.unflushed for collection in self._open.values())

    def flush(self) -> None:
        for collection in self._open.values():
            collection.flush()

    def close(self) -> None:
        self.flush()
        for collection in self._open.values():
            collection.shard.close()
        self._open.clear()


# What is asked of a collection: (collection, body) -> result


def _patch(collection: Collection, body: Any) -> bool:
    collection.set_metadata(wire.fields(body, "collection", "metadata").get("metadata", {}))
    return True


def _create_index(collection: Collection, body: Any) -> Json:
    index = wire.fields(body, "index", "field_name", "field_schema")
    schema = wire.field_index(index.get("field_schema"))
    return collection.update(edge.UpdateOperation.create_field_index(_text(index.get("field_name")), schema))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadRequest("field_name: a text is needed")
    return value


def _upsert(collection: Collection, body: Any) -> Json:
    wire.fields(body, "upsert", "points", "batch")
    return collection.update(edge.UpdateOperation.upsert_points(wire.points(body)))


def _by_selector(
    body: Json, by_ids: Callable[..., edge.UpdateOperation], by_filter: Callable[..., edge.UpdateOperation], *args: Any
) -> edge.UpdateOperation:
    """The operation on the points that `points` names or `filter` finds."""
    if "points" in body:
        return by_ids(wire.point_ids(body["points"]), *args)
    chosen = wire.filter_of(body.get("filter"))
    if chosen is None:
        raise BadRequest("`points` or `filter` is needed")
    return by_filter(chosen, *args)


_OP = edge.UpdateOperation


def _delete(collection: Collection, body: Any) -> Json:
    selector = wire.fields(body, "delete", "points", "filter")
    return collection.update(_by_selector(selector, _OP.delete_points, _OP.delete_points_by_filter))


def _set_payload(collection: Collection, body: Any) -> Json:
    asked = wire.fields(body, "payload", "payload", "points", "filter", "key")
    args = (asked.get("payload", {}), asked.get("key"))
    return collection.update(_by_selector(asked, _OP.set_payload, _OP.set_payload_by_filter, *args))


def _overwrite_payload(collection: Collection, body: Any) -> Json:
    asked = wire.fields(body, "payload", "payload", "points", "filter")
    args = (asked.get("payload", {}),)
    return collection.update(_by_selector(asked, _OP.overwrite_payload, _OP.overwrite_payload_by_filter, *args))


def _delete_payload(collection: Collection, body: Any) -> Json:
    asked = wire.fields(body, "payload", "keys", "points", "filter")
    keys = wire.listed(asked.get("keys"), "keys")
    return collection.update(_by_selector(asked, _OP.delete_payload, _OP.delete_payload_by_filter, keys))


def _clear_payload(collection: Collection, body: Any) -> Json:
    selector = wire.fields(body, "payload", "points", "filter")
    return collection.update(_by_selector(selector, _OP.clear_payload, _OP.clear_payload_by_filter))


_BATCHED: dict[str, Callable[[Collection, Any], Json]] = {
    "upsert": _upsert,
    "delete": _delete,
    "set_payload": _set_payload,
    "overwrite_payload": _overwrite_payload,
    "delete_payload": _delete_payload,
    "clear_payload": _clear_payload,
}


def _batch(collection: Collection, body: Any) -> list[Json]:
    operations = wire.listed(wire.fields(body, "batch", "operations").get("operations"), "operations")
    for operation in operations:
        if not isinstance(operation, dict) or len(operation) != 1 or not operation.keys() <= _BATCHED.keys():
            raise Unsupported(f"operations: the local vector store knows {', '.join(_BATCHED)}")
    return [_BATCHED[kind](collection, inner) for operation in operations for kind, inner in operation.items()]


def _retrieve(collection: Collection, body: Any) -> list[Json]:
    asked = wire.fields(body, "retrieve", "ids", "with_payload", "with_vector")
    chosen = wire.payload_selection(asked.get("with_payload", True))
    found = collection.shard.retrieve(wire.point_ids(asked.get("ids")), chosen, asked.get("with_vector", False))
    return [wire.record(point) for point in found]


def _scroll(collection: Collection, body: Any) -> Json:
    known = ("offset", "limit", "filter", "with_payload", "with_vector", "order_by")
    asked = wire.fields(body, "scroll", *known)
    points, following = collection.shard.scroll(
        edge.ScrollRequest(
            offset=wire.point_id(asked["offset"]) if "offset" in asked else None,
            limit=wire.whole(asked.get("limit", 10), "limit", least=1),
            filter=wire.filter_of(asked.get("filter")),
            with_payload=wire.payload_selection(asked.get("with_payload", True)),
            with_vector=asked.get("with_vector", False),
            order_by=wire.order(asked.get("order_by")),
        )
    )
    after = None if following is None else wire.plain_id(following)
    return {"points": [wire.record(point) for point in points], "next_page_offset": after}


def _query(collection: Collection, body: Any) -> Json:
    return {"points": [wire.scored(point) for point in collection.shard.query(wire.query(body))]}


def _query_batch(collection: Collection, body: Any) -> list[Json]:
    searches = wire.listed(wire.fields(body, "query", "searches").get("searches"), "searches")
    return [_query(collection, search) for search in searches]


def _search(collection: Collection, body: Any) -> list[Json]:
    """The older form of `_query`: `vector` is a list, or an object with `name` and `vector`."""
    if not isinstance(body, dict):
        raise BadRequest("search: an object is needed")
    rest = {key: value for key, value in body.items() if key != "vector"}
    vector = body.get("vector")
    if isinstance(vector, dict):
        named = wire.fields(vector, "vector", "name", "vector")
        rest["using"], vector = named.get("name"), named.get("vector")
    found: list[Json] = _query(collection, {**rest, "query": wire.listed(vector, "vector")})["points"]
    return found


def _count(collection: Collection, body: Any) -> Json:
    asked = wire.fields(body, "count", "filter", "exact")
    return {"count": collection.shard.count(edge.CountRequest(filter=wire.filter_of(asked.get("filter"))))}


def _facet(collection: Collection, body: Any) -> Json:
    asked = wire.fields(body, "facet", "key", "limit", "filter", "exact")
    request = edge.FacetRequest(
        key=_text(asked.get("key")),
        limit=wire.whole(asked.get("limit", 10), "limit", least=1),
        exact=True,
        filter=wire.filter_of(asked.get("filter")),
    )
    return {"hits": [{"value": hit.value, "count": hit.count} for hit in collection.shard.facet(request).hits]}


COLLECTION_ROUTES: list[tuple[str, str, Callable[[Collection, Any], Any]]] = [
    ("GET", "", lambda collection, _: collection.describe()),
    ("PATCH", "", _patch),
    ("PUT", "/index", _create_index),
    ("PUT", "/points", _upsert),
    ("POST", "/points", _retrieve),
    ("POST", "/points/delete", _delete),
    ("POST", "/points/payload", _set_payload),
    ("PUT", "/points/payload", _overwrite_payload),
    ("POST", "/points/payload/delete", _delete_payload),
    ("POST", "/points/payload/clear", _clear_payload),
    ("POST", "/points/batch", _batch),
    ("POST", "/points/scroll", _scroll),
    ("POST", "/points/query", _query),
    ("POST", "/points/query/batch", _query_batch),
    ("POST", "/points/search", _search),
    ("POST", "/points/count", _count),
    ("POST", "/facet", _facet),
]
