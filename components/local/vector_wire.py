"""Qdrant's REST JSON, to and from the objects of Qdrant Edge.

Covers what `qdrant-client` and `langgraph-store-qdrant` send: filters, nearest and ordered queries, named, single and
multi vectors, payload selection, payload indexes. What Qdrant knows and this does not raises `Unsupported`, never a
quietly different answer. Field names: https://api.qdrant.tech (version in `API_VERSION`).
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from typing import Any

import qdrant_edge as edge

API_VERSION = "1.20.0"
"""The version of Qdrant whose REST API is spoken; clients compare it with their own."""

Json = dict[str, Any]


class BadRequest(ValueError):
    """The request is wrong; the text says where (400)."""


class Unsupported(BadRequest):
    """Qdrant can do this, the local store cannot (501)."""


def fields(body: Any, where: str, *allowed: str) -> Json:
    """`body` as an object with no other fields than `allowed`; those that are null count as absent."""
    if not isinstance(body, dict):
        raise BadRequest(f"{where}: an object is needed")
    present = {key: value for key, value in body.items() if value is not None}
    if unknown := present.keys() - set(allowed):
        raise Unsupported(f"{where}: the local vector store does not know `{sorted(unknown)[0]}`")
    return present


def whole(value: Any, where: str, *, least: int = 0) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadRequest(f"{where}: a whole number of at least {least} is needed")
    return value


def listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadRequest(f"{where}: a list is needed")
    return value


def point_id(value: Any) -> int | str:
    """An unsigned integer or a UUID; raises `BadRequest` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64:
        return value
    if isinstance(value, str):
        try:
            return str(uuid.UUID(value))
        except ValueError:
            pass
    raise BadRequest("a point id must be an unsigned integer or a UUID")


def point_ids(value: Any) -> list[edge.PointId]:
    return [point_id(item) for item in listed(value, "points")]


# Collections

_DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Dot": edge.Distance.Dot,
    "Euclid": edge.Distance.Euclid,
    "Manhattan": edge.Distance.Manhattan,
}

_NO_GRAPH_KB = 2**40
"""Size in kB from which an index graph is built: never. Exact search takes 1.3 ms over 10,000 vectors of 384."""


def edge_config(vectors: Any) -> edge.EdgeConfig:
    """The configuration of a shard for Qdrant's `vectors` object, single or named."""
    if not isinstance(vectors, dict) or not vectors:
        raise Unsupported("vectors: a collection needs at least one vector here")
    named = {"": vectors} if "size" in vectors else vectors
    return edge.EdgeConfig(
        vectors={name: _vector_params(params, f"vectors.{name}") for name, params in named.items()},
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=_NO_GRAPH_KB, default_segment_number=1),
        max_search_threads=1,
        wal_enabled=False,  # it is never cut (0.9.0: 44 MB after 40,000 writes, replayed at each start); we flush
    )


def _vector_params(body: Any, where: str) -> edge.EdgeVectorParams:
    # How a server lays vectors out on its disks means nothing to a store this small.
    params = fields(body, where, "size", "distance", "multivector_config", "on_disk", "hnsw_config", "datatype")
    if params.get("datatype", "float32") != "float32":
        raise Unsupported(f"{where}: only float32 vectors are kept")
    if params.get("distance") not in _DISTANCES:
        raise BadRequest(f"{where}.distance: one of {', '.join(_DISTANCES)} is needed")
    multi = params.get("multivector_config")
    if multi is not None and multi != {"comparator": "max_sim"}:
        raise Unsupported(f"{where}.multivector_config: only max_sim is known")
    return edge.EdgeVectorParams(
        size=whole(params.get("size"), f"{where}.size", least=1),
        distance=_DISTANCES[params["distance"]],
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if multi else None,
    )


_INDEXES: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "keyword": (edge.KeywordIndexParams, ("is_tenant", "on_disk", "enable_hnsw")),
    "integer": (edge.IntegerIndexParams, ("lookup", "range", "is_principal", "on_disk", "enable_hnsw")),
    "float": (edge.FloatIndexParams, ("is_principal", "on_disk", "enable_hnsw")),
    "bool": (edge.BoolIndexParams, ("on_disk", "enable_hnsw")),
    "datetime": (edge.DatetimeIndexParams, ("is_principal", "on_disk", "enable_hnsw")),
    "uuid": (edge.UuidIndexParams, ("is_tenant", "on_disk", "enable_hnsw")),
}


def field_index(schema: Any) -> Any:
    """The index that Qdrant's `field_schema` (a name, or an object with `type`) asks for."""
    body = {"type": schema} if isinstance(schema, str) else schema
    kind = body.get("type") if isinstance(body, dict) else None
    if kind not in _INDEXES:
        raise Unsupported(f"field_schema: the local vector store indexes {', '.join(_INDEXES)}")
    make, allowed = _INDEXES[kind]
    params = fields(body, "field_schema", "type", *allowed)
    del params["type"]
    return make(**params)


# Points


def points(body: Any) -> list[edge.Point]:
    """The points of an upsert, given one by one (`points`) or by column (`batch`)."""
    if isinstance(body, dict) and body.get("batch") is not None:
        batch = fields(body["batch"], "batch", "ids", "vectors", "payloads")
        ids = listed(batch.get("ids"), "batch.ids")
        vectors = batch.get("vectors")
        if isinstance(vectors, dict):
            vectors = [dict(zip(vectors, row, strict=True)) for row in zip(*vectors.values(), strict=True)]
        payloads = batch.get("payloads") or [None] * len(ids)
        if not isinstance(vectors, list) or len({len(ids), len(vectors), len(payloads)}) != 1:
            raise BadRequest("batch: ids, vectors and payloads must be of one length")
        rows = [
            {"id": id_, "vector": vector, "payload": payload}
            for id_, vector, payload in zip(ids, vectors, payloads, strict=True)
        ]
    else:
        rows = listed(body.get("points") if isinstance(body, dict) else None, "points")
    made = []
    for number, row in enumerate(rows):
        where = f"points[{number}]"
        point = fields(row, where, "id", "vector", "payload")
        payload = point.get("payload", {})
        if not isinstance(payload, dict):
            raise BadRequest(f"{where}.payload: an object is needed")
        made.append(
            edge.Point(id=point_id(point.get("id")), vector=vector(point.get("vector"), where), payload=payload)
        )
    return made


def vector(value: Any, where: str) -> Any:
    """A vector, a list of vectors, or such by name."""
    if isinstance(value, dict):
        return {name: _numbers(part, f"{where}.vector.{name}") for name, part in value.items()}
    return _numbers(value, f"{where}.vector")


def _numbers(value: Any, where: str) -> list[Any]:
    if isinstance(value, list) and value:
        if all(isinstance(part, list) for part in value):
            return [_numbers(part, where) for part in value]
        if all(isinstance(part, int | float) and math.isfinite(part) for part in value):
            return value
    raise BadRequest(f"{where}: a list of finite numbers is needed")


# Queries


def query(body: Any) -> edge.QueryRequest:
    """A `points/query` request."""
    known = ("query", "using", "filter", "limit", "offset", "with_payload", "with_vector", "score_threshold", "params")
    request = fields(body, "query", *known, "prefetch")
    if request.pop("prefetch", None):
        raise Unsupported("query: the local vector store has no prefetch")
    return edge.QueryRequest(
        query=_scoring(request.get("query"), request.get("using")),
        filter=filter_of(request.get("filter")),
        limit=whole(request.get("limit", 10), "limit", least=1),
        offset=whole(request.get("offset", 0), "offset"),
        with_payload=payload_selection(request.get("with_payload", False)),
        with_vector=request.get("with_vector", False),
        score_threshold=request.get("score_threshold"),
        params=_params(request.get("params")),
    )


def _params(body: Any) -> edge.SearchParams | None:
    if body is None:
        return None
    # Every search here is exact, so what tunes an approximate one is taken and means nothing.
    fields(body, "params", "exact", "hnsw_ef", "indexed_only")
    return edge.SearchParams(exact=True)


def _scoring(value: Any, using: str | None) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return edge.Query.Nearest(_numbers(value, "query"), using=using)
    if isinstance(value, dict) and value.keys() == {"nearest"}:
        return _scoring(value["nearest"], using)
    if isinstance(value, dict) and value.keys() == {"order_by"}:
        return order(value["order_by"])
    raise Unsupported("query: the local vector store knows nearest (by a vector) and order_by")


def order(value: Any) -> edge.OrderBy | None:
    """`order_by`: a field's name, or an object."""
    if value is None:
        return None
    body = fields({"key": value} if isinstance(value, str) else value, "order_by", "key", "direction", "start_from")
    direction = body.get("direction", "asc")
    if direction not in ("asc", "desc") or not isinstance(body.get("key"), str):
        raise BadRequest("order_by: `key` and a direction of asc or desc are needed")
    way = edge.Direction.Asc if direction == "asc" else edge.Direction.Desc
    return edge.OrderBy(key=body["key"], direction=way, start_from=body.get("start_from"))


def payload_selection(value: Any) -> Any:
    """`with_payload`: a truth value, names of fields, or an object with `include` or `exclude`."""
    if isinstance(value, bool | list):
        return value
    body = fields(value, "with_payload", "include", "exclude")
    if "exclude" in body:
        return edge.PayloadSelector.Exclude(listed(body["exclude"], "with_payload.exclude"))
    return listed(body.get("include"), "with_payload.include")


# Filters


def filter_of(body: Any) -> edge.Filter | None:
    """A filter; None for none."""
    if body is None:
        return None
    clauses = fields(body, "filter", "must", "should", "must_not", "min_should")
    least = clauses.get("min_should")
    if least is not None:
        parts = fields(least, "min_should", "conditions", "min_count")
        conditions = _conditions(parts.get("conditions")) or []
        least = edge.MinShould(conditions, whole(parts.get("min_count"), "min_should.min_count"))
    return edge.Filter(
        must=_conditions(clauses.get("must")),
        should=_conditions(clauses.get("should")),
        must_not=_conditions(clauses.get("must_not")),
        min_should=least,
    )


def _conditions(value: Any) -> list[Any] | None:
    if value is None:
        return None
    return [_condition(part) for part in (value if isinstance(value, list) else [value])]


def _condition(body: Any) -> Any:
    match body:
        case {"is_empty": {"key": str(key)}}:
            return edge.IsEmptyCondition(key)
        case {"is_null": {"key": str(key)}}:
            return edge.IsNullCondition(key)
        case {"has_id": list(ids)}:
            return edge.HasIdCondition({point_id(id_) for id_ in ids})
        case {"has_vector": str(name)}:
            return edge.HasVectorCondition(name)
        case {"nested": {"key": str(key), "filter": inner}}:
            return edge.NestedCondition(key, filter_of(inner) or edge.Filter())
        case {"key": str(key)}:
            field = fields(body, f"filter on {key}", "key", "match", "range", "values_count", "is_empty", "is_null")
            counts = field.get("values_count")
            return edge.FieldCondition(
                key=key,
                match=_match(field["match"]) if "match" in field else None,
                range=_range(field["range"]) if "range" in field else None,
                values_count=edge.ValuesCount(**fields(counts, "values_count", *_BOUNDS)) if counts else None,
                is_empty=field.get("is_empty"),
                is_null=field.get("is_null"),
            )
        case {"must": _} | {"should": _} | {"must_not": _} | {"min_should": _}:
            return filter_of(body)
    raise Unsupported("filter: the local vector store does not know this condition")


_MATCHES: dict[str, Callable[[Any], Any]] = {
    "value": edge.MatchValue,
    "any": edge.MatchAny,
    "except": edge.MatchExcept,
    "text": edge.MatchText,
    "phrase": edge.MatchPhrase,
}
_BOUNDS = ("gt", "gte", "lt", "lte")


def _match(body: Any) -> Any:
    given = fields(body, "match", *_MATCHES)
    if len(given) != 1:
        raise BadRequest(f"match: exactly one of {', '.join(_MATCHES)} is needed")
    ((kind, value),) = given.items()
    return _MATCHES[kind](value)


def _range(body: Any) -> Any:
    bounds = fields(body, "range", *_BOUNDS)
    dated = any(isinstance(bound, str) for bound in bounds.values())
    return edge.RangeDateTime(**bounds) if dated else edge.RangeFloat(**bounds)


# Answers


def plain_id(value: Any) -> int | str:
    """An id as it stands in JSON."""
    return value if isinstance(value, int) else str(value)


def record(point: Any) -> Json:
    """A point that was read."""
    return {
        "id": plain_id(point.id),
        "payload": point.payload,
        "vector": point.vector,
        "order_value": point.order_value,
    }


def scored(point: Any) -> Json:
    """A point that was found, with its score."""
    return {**record(point), "version": point.version, "score": point.score}
