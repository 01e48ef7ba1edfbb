"""Who gets which requests, as a Gateway API route: weights, pins, the mirror of a shadow, TLS in front.

The rules are written whole at every change, by this component alone: a rule's backends are one value to Kubernetes. A
release of weight 0 stays a backend, so that giving it requests, or taking all from it, is one write. With Envoy Gateway
the details that Gateway API has no words for come as its own policies (`envoy_gateway`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import apiextensions, meta

from components.kubernetes import labels
from components.traffic import MIRRORED_METHOD, HeaderPin, ReleaseTraffic, Role, TrafficPlan

API = "gateway.networking.k8s.io/v1"
ENVOY_API = "gateway.envoyproxy.io/v1alpha1"
COMPONENT = "gateway"
HTTP, HTTPS = "http", "https"
HTTP_PORT, HTTPS_PORT = 80, 443

STREAM_IDLE = "1h"
"""Silence after which a stream is cut. The api sends a comment line far more often than that."""
UPSTREAM_IDLE = "60s"
"""Below the api's keep-alive (75 s): the proxy closes idle connections first, so no request meets a closing one."""
_MOST = 16_384
"""Streams at a time. Envoy's own default, 1,024, would refuse agents' long streams with 503."""
_MILLION = 1_000_000


class BackendArgs(TypedDict):
    """One release's part in the traffic."""

    release: str
    """Its name."""
    service: pulumi.Input[str]
    """Service before its apis."""
    port: pulumi.Input[int]
    """Port of that Service."""
    weight: NotRequired[int]
    """Percent of the unpinned requests; all sum to 100. Default 0."""
    pin_header: NotRequired[str]
    """Header that sends a request here whatever the weights say."""
    pin_value: NotRequired[str]
    """Value that the header must have. Default: the release's name."""
    mirror_percent: NotRequired[float]
    """Above 0 the release is a shadow: it gets copies of this share of the POST requests, and answers nobody."""


class TlsArgs(TypedDict):
    """Where the certificate is."""

    secret_name: pulumi.Input[str]
    """Secret of type kubernetes.io/tls in the same namespace."""
    cluster_issuer: NotRequired[pulumi.Input[str]]
    """ClusterIssuer of cert-manager that fills that Secret. Default: somebody else does."""


class SharedGatewayArgs(TypedDict):
    """A Gateway that somebody else runs."""

    name: pulumi.Input[str]
    """Its name."""
    namespace: pulumi.Input[str]
    """Its namespace."""
    section: NotRequired[pulumi.Input[str]]
    """Listener that the route attaches to. Default: all that admit it."""


class ServiceType(str, Enum):  # noqa: UP042 - Pulumi's schema knows this form
    """How the proxies are reached from outside."""

    LOAD_BALANCER = "LoadBalancer"
    NODE_PORT = "NodePort"
    CLUSTER_IP = "ClusterIP"


class EnvoyGatewayArgs(TypedDict):
    """What only Envoy Gateway can do."""

    replicas: NotRequired[int]
    """Proxies. Default 2."""
    service_type: NotRequired[ServiceType]
    """Type of the Service before them. Default LoadBalancer."""
    service_annotations: NotRequired[Mapping[str, str]]
    """Annotations of that Service, which clouds read."""


class TrafficSplitArgs(TypedDict):
    """What a split needs to know."""

    namespace: pulumi.Input[str]
    """The namespace."""
    backends: Sequence[BackendArgs]
    """The releases that have an api."""
    hostnames: NotRequired[Sequence[str]]
    """Names that are served. Default: any."""
    tls: NotRequired[TlsArgs]
    """With it, HTTPS is served and HTTP leads there. Default: HTTP."""
    gateway_class: NotRequired[pulumi.Input[str]]
    """Class of the Gateway that is made. Default `eg`."""
    shared_gateway: NotRequired[SharedGatewayArgs]
    """A Gateway to attach to instead of one of its own. TLS is then that Gateway's affair."""
    envoy_gateway: NotRequired[EnvoyGatewayArgs]
    """Give it when the class is Envoy Gateway's. Default: only what Gateway API itself knows."""


class TrafficSplit(pulumi.ComponentResource):
    """Gateway and routes. Outputs: `gateway_name`; `route_name`, known once the route is written."""

    gateway_name: pulumi.Output[str]
    route_name: pulumi.Output[str]

    def __init__(self, name: str, args: TrafficSplitArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:TrafficSplit", name, {}, opts)
        labels.dns_label(name, "name of the split")
        routed = rules(args["backends"])
        _check(args)
        shared, envoy = args.get("shared_gateway"), args.get("envoy_gateway")
        if shared is None:
            self.gateway_name = self._gateway(name, args)
            parents = [{"name": self.gateway_name, "sectionName": section} for section in _served(args)]
        else:
            self.gateway_name = pulumi.Output.from_input(shared["name"])
            section = {"sectionName": shared["section"]} if "section" in shared else {}
            parents = [{"name": shared["name"], "namespace": shared["namespace"], **section}]
        self.route_name = self._route(name, args, parents, routed)
        if "tls" in args:
            plain = [{"name": self.gateway_name, "sectionName": HTTP}]
            self._route(f"{name}-redirect", args, plain, [REDIRECT])
        if envoy is not None:
            self._object(
                f"{name}-upstream",
                args,
                (ENVOY_API, "BackendTrafficPolicy"),
                {"targetRefs": [_reference("HTTPRoute", self.route_name)], **UPSTREAM},
            )
        self.register_outputs({"gateway_name": self.gateway_name, "route_name": self.route_name})

    def _gateway(self, name: str, args: TrafficSplitArgs) -> pulumi.Output[str]:
        envoy, tls = args.get("envoy_gateway"), args.get("tls")
        spec: dict[str, Any] = {
            "gatewayClassName": args.get("gateway_class", "eg"),
            "listeners": listeners(args.get("hostnames", ()), tls["secret_name"] if tls else None),
        }
        if envoy is not None:
            proxy = self._object(f"{name}-proxy", args, (ENVOY_API, "EnvoyProxy"), _proxy(envoy))
            parameters = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": proxy}
            spec["infrastructure"] = {"parametersRef": parameters}
        annotations = {"pulumi.com/waitFor": "condition=Programmed"}
        if tls and "cluster_issuer" in tls:
            annotations["cert-manager.io/cluster-issuer"] = tls["cluster_issuer"]  # type: ignore[assignment]
        made = self._object(name, args, (API, "Gateway"), spec, annotations)
        if envoy is not None:
            self._object(
                f"{name}-clients",
                args,
                (ENVOY_API, "ClientTrafficPolicy"),
                {"targetRefs": [_reference("Gateway", made)], **CLIENTS},
            )
        return made

    def _route(
        self, name: str, args: TrafficSplitArgs, parents: list[dict[str, Any]], routed: list[dict[str, Any]]
    ) -> pulumi.Output[str]:
        spec: dict[str, Any] = {"parentRefs": parents, "rules": routed}
        if args.get("hostnames"):
            spec["hostnames"] = list(args["hostnames"])
        return self._object(
            name, args, (API, "HTTPRoute"), spec, {"pulumi.com/waitFor": _ACCEPTED}, resource=f"{name}-route"
        )

    def _object(
        self,
        name: str,
        args: TrafficSplitArgs,
        kind: tuple[str, str],
        spec: dict[str, Any],
        annotations: dict[str, str] | None = None,
        *,
        resource: str | None = None,
    ) -> pulumi.Output[str]:
        """An object called `name`; its name, known once it is there."""
        made = apiextensions.CustomResource(
            resource or f"{name}-{kind[1].lower()}",
            api_version=kind[0],
            kind=kind[1],
            metadata=meta.v1.ObjectMetaArgs(
                name=name, namespace=args["namespace"], labels=labels.labels(COMPONENT, name), annotations=annotations
            ),
            spec=spec,
            opts=pulumi.ResourceOptions(parent=self),
        )
        return made.id.apply(lambda _: name)


def plan_of(backends: Sequence[BackendArgs]) -> TrafficPlan:
    """The plan of these parts. Raises ValueError when they do not make a whole."""
    parts = []
    for part in backends:
        pinned = part.get("pin_header")
        parts.append(
            ReleaseTraffic(
                name=part["release"],
                role=Role.SHADOW if part.get("mirror_percent") else Role.SERVING,
                weight=part.get("weight", 0),
                pin=HeaderPin(pinned, part.get("pin_value", part["release"])) if pinned else None,
                mirror_percent=part.get("mirror_percent", 0),
            )
        )
    try:
        return TrafficPlan(tuple(parts))
    except ValueError as error:
        raise ValueError(f"backends: {error}") from None


def rules(backends: Sequence[BackendArgs]) -> list[dict[str, Any]]:
    """The rules of the route: pins first, then the weighted split, its POST requests with the mirror."""
    plan = plan_of(backends)
    services = {part["release"]: {"name": part["service"], "port": part["port"]} for part in backends}
    found: list[dict[str, Any]] = []
    for release in plan.pinned:
        assert release.pin is not None
        header = {"type": "Exact", "name": release.pin.header, "value": release.pin.value}
        found.append(_rule(f"pin-{release.name}", {"headers": [header]}, [{**services[release.name], "weight": 1}]))
    split = [{**services[release.name], "weight": release.weight} for release in plan.weighted]
    if plan.shadow is not None:
        mirror = {"backendRef": services[plan.shadow.name], **_share(plan.shadow.mirror_percent)}
        copied = _rule("mirrored", {"method": MIRRORED_METHOD}, split)
        found.append({**copied, "filters": [{"type": "RequestMirror", "requestMirror": mirror}]})
    return [*found, _rule("split", {}, split)]


def listeners(hostnames: Sequence[str], certificate: pulumi.Input[str] | None) -> list[dict[str, Any]]:
    """HTTP, and with a certificate HTTPS for each name (cert-manager asks for the name there)."""
    same = {"namespaces": {"from": "Same"}}
    found: list[dict[str, Any]] = [{"name": HTTP, "port": HTTP_PORT, "protocol": "HTTP", "allowedRoutes": same}]
    if certificate is not None:
        tls = {"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": certificate}]}
        for section, hostname in _sections(hostnames).items():
            listener = {"name": section, "port": HTTPS_PORT, "protocol": "HTTPS", "tls": tls, "allowedRoutes": same}
            found.append({**listener, **({"hostname": hostname} if hostname else {})})
    return found


def _sections(hostnames: Sequence[str]) -> dict[str, str | None]:
    """Names of the HTTPS listeners, by them the hostname."""
    names: Sequence[str | None] = hostnames or [None]
    return {HTTPS if at == 0 else f"{HTTPS}-{at}": hostname for at, hostname in enumerate(names)}


def _served(args: TrafficSplitArgs) -> list[str]:
    return list(_sections(args.get("hostnames", ()))) if "tls" in args else [HTTP]


def _check(args: TrafficSplitArgs) -> None:
    if "tls" in args and "shared_gateway" in args:
        raise ValueError("tls: the shared gateway has its own certificate; take tls out")
    if "cluster_issuer" in args.get("tls", {}) and not args.get("hostnames"):
        raise ValueError("hostnames: a certificate is made for names; give at least one")
    if args.get("envoy_gateway", {}).get("replicas", 1) < 1:
        raise ValueError("envoy_gateway.replicas: give 1 or more")


def _rule(name: str, match: dict[str, Any], backends: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}, **match}],
        "backendRefs": backends,
        # A stream may last as long as its run; the api ends its own requests in time. Unset would mean 15 s.
        "timeouts": {"request": "0s"},
    }


def _share(percent: float) -> dict[str, Any]:
    if percent == int(percent):
        return {"percent": int(percent)}
    return {"fraction": {"numerator": round(percent * _MILLION / 100), "denominator": _MILLION}}


def _reference(kind: str, name: pulumi.Input[str]) -> dict[str, Any]:
    return {"group": "gateway.networking.k8s.io", "kind": kind, "name": name}


def _proxy(envoy: EnvoyGatewayArgs) -> dict[str, Any]:
    service: dict[str, Any] = {"type": envoy.get("service_type", ServiceType.LOAD_BALANCER).value}
    if envoy.get("service_annotations"):
        service["annotations"] = dict(envoy["service_annotations"])
    return {
        # Otherwise it replaces what the class says, the image of the proxy included.
        "mergeType": "StrategicMerge",
        # A proxy that leaves lets its streams go on for so long.
        "shutdown": {"drainTimeout": "300s"},
        "provider": {
            "type": "Kubernetes",
            "kubernetes": {
                "envoyDeployment": {"replicas": envoy.get("replicas", 2)},
                "envoyPDB": {"maxUnavailable": 1},
                "envoyService": service,
            },
        },
    }


REDIRECT: dict[str, Any] = {
    "name": "to-https",
    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
    "filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}],
}

CLIENTS: dict[str, Any] = {
    # Answers of two releases to one request are matched by it.
    "headers": {"requestID": "PreserveOrGenerate"},
    "connection": {"connectionLimit": {"value": _MOST}},
    "timeout": {
        "http": {"requestHeadersReceivedTimeout": "10s", "streamIdleTimeout": STREAM_IDLE, "idleTimeout": STREAM_IDLE}
    },
}
"""How clients are served."""

UPSTREAM: dict[str, Any] = {
    "circuitBreaker": {
        "maxConnections": _MOST,
        "maxPendingRequests": _MOST,
        "maxParallelRequests": _MOST,
    },
    # Only what never reached an api is sent again.
    "retry": {
        "numRetries": 2,
        "retryOn": {"triggers": ["connect-failure", "refused-stream", "reset-before-request"]},
    },
    "timeout": {
        "tcp": {"connectTimeout": "2s"},
        "http": {"connectionIdleTimeout": UPSTREAM_IDLE},
    },
}
"""How apis are reached."""

_ACCEPTED = 'jsonpath={.status.parents[0].conditions[?(@.type=="Accepted")].status}=True'
