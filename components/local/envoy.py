"""Envoy's files for the front door, rendered from the traffic plan. Pure: no file, no process.

The listener stands in the bootstrap; clusters (CDS) and routes (RDS) are files in a watched folder, so that weights,
pins, mirrors and the api processes behind them change without a restart. A cluster is one api process: its name
carries the address, so a moved process is a new cluster and requests on the old one end undisturbed.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from components.traffic import MIRRORED_METHOD, TrafficPlan

ROUTES = "front-door"
"""Name of the route configuration, and of the listener's statistics."""

STREAM_IDLE_SECONDS = 3_600
"""Silence after which a stream is cut. The api sends a comment line far more often than that."""

UPSTREAM_IDLE_SECONDS = 60
"""Below the api's keep-alive (75 s): Envoy closes idle connections first, so no request meets a closing one."""

_TYPE = "type.googleapis.com/envoy"
_HTTP = f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router", "suppress_envoy_headers": True}
_MOST = 16_384
"""Streams at a time. Envoy's own default, 1,024, would refuse agents' long streams with 503."""


Json = dict[str, Any]


def bootstrap(*, host: str, port: int, folder: Path, admin_socket: Path) -> str:
    """Envoy's start configuration. `folder` is watched for `cds.json` and `rds.json`."""
    manager: Json = {
        "@type": _HTTP,
        "stat_prefix": ROUTES,
        "codec_type": "AUTO",
        "http_filters": [{"name": "router", "typed_config": _ROUTER}],
        "rds": {"route_config_name": ROUTES, "config_source": _watched(folder, "rds.json")},
        "use_remote_address": True,
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "stream_idle_timeout": f"{STREAM_IDLE_SECONDS}s",
        "request_headers_timeout": "10s",
        "common_http_protocol_options": {"idle_timeout": f"{STREAM_IDLE_SECONDS}s"},
        "local_reply_config": _problems(),
    }
    listener = {
        "name": ROUTES,
        "address": {"socket_address": {"address": host, "port_value": port}},
        "per_connection_buffer_limit_bytes": 1_048_576,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return _text(
        {
            "node": {"id": ROUTES, "cluster": "slipway"},
            "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": 0o600}}},
            "dynamic_resources": {"cds_config": _watched(folder, "cds.json")},
            "static_resources": {"listeners": [listener]},
        }
    )


def _watched(folder: Path, name: str) -> Json:
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(folder / name), "watched_directory": {"path": str(folder)}},
    }


def _problems() -> Json:
    """Envoy's own errors as problem documents (RFC 9457), like the service's."""

    def mapper(status: int, title: str, detail: str, headers: dict[str, str]) -> Json:
        value = {"default_value": status, "runtime_key": f"status_{status}"}
        return {
            "filter": {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}},
            "headers_to_add": [
                {"header": {"key": key, "value": text}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                for key, text in headers.items()
            ],
            "body_format_override": {
                "json_format": {"type": "about:blank", "title": title, "status": "%RESPONSE_CODE%", "detail": detail},
                "content_type": "application/problem+json",
            },
        }

    return {
        "mappers": [
            mapper(503, "Service Unavailable", "the release does not answer; try again shortly", {"retry-after": "2"}),
            mapper(404, "Not Found", "nothing is served here", {}),
        ]
    }


def clusters(addresses: dict[str, str], *, more: list[Json] | None = None) -> list[Json]:
    """A cluster for each release's api, `addresses` being name → host:port; those of `more` with another name stay."""
    made = [_cluster(release, address) for release, address in addresses.items()]
    names = {cluster["name"] for cluster in made}
    return made + [cluster for cluster in more or [] if cluster["name"] not in names]


def cluster_name(release: str, address: str) -> str:
    return f"{release}@{address}"


def _cluster(release: str, address: str) -> Json:
    host, _, port = address.rpartition(":")
    name = cluster_name(release, address)
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
    most = {"max_connections": _MOST, "max_pending_requests": _MOST, "max_requests": _MOST}
    return {
        "@type": f"{_TYPE}.config.cluster.v3.Cluster",
        "name": name,
        "alt_stat_name": release,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [most]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": f"{UPSTREAM_IDLE_SECONDS}s"},
            }
        },
    }


def routes(plan: TrafficPlan, addresses: dict[str, str]) -> Json:
    """The route configuration: pins first, then the weighted split, its POST requests with the mirror."""
    rules: list[Json] = []
    for release in plan.pinned:
        if release.pin is not None:
            header = {"name": release.pin.header, "string_match": {"exact": release.pin.value}}
            target = {"cluster": cluster_name(release.name, addresses[release.name])}
            rules.append({"match": {"prefix": "/", "headers": [header]}, "route": {**_ROUTE, **target}})
    split = [
        {"name": cluster_name(release.name, addresses[release.name]), "weight": release.weight}
        for release in plan.weighted
    ]
    weighted = {**_ROUTE, "weighted_clusters": {"clusters": split}}
    if plan.shadow is not None:
        mirror = {
            "cluster": cluster_name(plan.shadow.name, addresses[plan.shadow.name]),
            "runtime_fraction": {
                "default_value": {"numerator": round(plan.shadow.mirror_percent * 10_000), "denominator": "MILLION"}
            },
            "disable_shadow_host_suffix_append": True,
        }
        method = {"name": ":method", "string_match": {"exact": MIRRORED_METHOD}}
        rules.append(
            {
                "match": {"prefix": "/", "headers": [method]},
                "route": {**weighted, "request_mirror_policies": [mirror]},
            }
        )
    rules.append({"match": {"prefix": "/"}, "route": weighted})
    host = {"name": "service", "domains": ["*"], "routes": rules}
    return {
        "@type": f"{_TYPE}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "virtual_hosts": [host],
    }


_ROUTE: Json = {
    # A stream may last as long as its run; the api ends its own requests in time.
    "timeout": "0s",
    # Only what never reached the api is sent again: a refused connection, or a reset before the request went out.
    "retry_policy": {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2},
}


def _text(value: Json) -> str:
    return json.dumps(value, indent=1)


def response(version: str, resources: list[Json]) -> str:
    """A file for Envoy to read: all resources of one kind, under `version`."""
    return _text({"version_info": version, "resources": resources})


def version_of(plan: Json, addresses: dict[str, str]) -> str:
    """Name of this state of the routes: equal plans and addresses have equal versions."""
    return sha256(json.dumps([plan, addresses], sort_keys=True).encode()).hexdigest()[:12]


EMPTY = response("empty", [])
"""Before the first routes are written: no cluster."""

CLOSED = response(
    "empty",
    [{"@type": f"{_TYPE}.config.route.v3.RouteConfiguration", "name": ROUTES, "virtual_hosts": []}],
)
"""Before the first routes are written, and after the last: every request gets 404."""
