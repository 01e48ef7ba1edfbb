"""The route of a split: which request goes where, as Gateway API says it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from components.kubernetes.traffic_split import BackendArgs, TrafficSplit, listeners, rules
from tests.support.components import Render, rendering


@pytest.fixture
def render() -> Iterator[Render]:
    with rendering() as run:
        yield run


def backend(release: str, **more: Any) -> BackendArgs:
    return {"release": release, "service": f"api-{release}", "port": 8000, **more}  # type: ignore[typeddict-item]


def split(**more: Any) -> TrafficSplit:
    args = {"namespace": "agents", "backends": [backend("stable", weight=100)], **more}
    return TrafficSplit("slipway", args)  # type: ignore[arg-type]


def test_a_release_of_weight_0_stays_a_backend() -> None:
    """So that raising its weight, or taking it back, is one write."""
    (rule,) = rules([backend("stable", weight=100), backend("canary")])
    assert [(one["name"], one["weight"]) for one in rule["backendRefs"]] == [("api-stable", 100), ("api-canary", 0)]


def test_a_pin_wins_over_the_weights_and_needs_none() -> None:
    pinned, _ = rules([backend("stable", weight=100), backend("canary", pin_header="x-slipway-release")])
    assert pinned["matches"][0]["headers"] == [{"type": "Exact", "name": "x-slipway-release", "value": "canary"}]
    assert [(one["name"], one["weight"]) for one in pinned["backendRefs"]] == [("api-canary", 1)]


def test_a_shadow_gets_copies_of_posts_and_answers_nobody() -> None:
    """A copy of a read would ask for what the shadow never had."""
    mirrored, rest = rules([backend("stable", weight=100), backend("next", mirror_percent=5)])
    assert mirrored["matches"][0]["method"] == "POST"
    assert mirrored["filters"] == [
        {
            "type": "RequestMirror",
            "requestMirror": {"backendRef": {"name": "api-next", "port": 8000}, "percent": 5},
        }
    ]
    assert "filters" not in rest
    for rule in (mirrored, rest):
        assert [one["name"] for one in rule["backendRefs"]] == ["api-stable"]


def test_a_part_of_a_percent_is_a_fraction() -> None:
    """`percent` is whole."""
    mirrored, _ = rules([backend("stable", weight=100), backend("next", mirror_percent=0.05)])
    mirror = mirrored["filters"][0]["requestMirror"]
    assert mirror["fraction"] == {"numerator": 500, "denominator": 1_000_000}
    assert "percent" not in mirror


def test_no_rule_has_an_end_to_its_requests() -> None:
    """Unset would cut each stream after 15 s."""
    made = rules(
        [backend("stable", weight=100), backend("canary", pin_header="x"), backend("next", mirror_percent=100)]
    )
    assert [rule["timeouts"] for rule in made] == [{"request": "0s"}] * 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"backends": [backend("stable", weight=90)]}, "backends: the weights sum to 90", id="weights"),
        pytest.param(
            {"backends": [backend("a", weight=100), backend("b", mirror_percent=5, weight=0, pin_header="x")]},
            "backends: b is shadow",
            id="pinned shadow",
        ),
        pytest.param(
            {"tls": {"secret_name": "tls"}, "shared_gateway": {"name": "g", "namespace": "g"}},
            "tls: the shared gateway has its own certificate",
            id="two certificates",
        ),
        pytest.param(
            {"tls": {"secret_name": "tls", "cluster_issuer": "i"}},
            "hostnames: a certificate is made for names",
            id="issuer",
        ),
        pytest.param({"envoy_gateway": {"replicas": 0}}, "envoy_gateway.replicas: give 1 or more", id="no proxy"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(render: Render, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        render(lambda: split(**changes))


def test_with_a_certificate_http_only_leads_to_https(render: Render) -> None:
    made = render(lambda: split(hostnames=["a.example.com", "b.example.com"], tls={"secret_name": "tls"}))
    gateway = made.only("Gateway")["spec"]
    assert [(one["name"], one["port"], one.get("hostname")) for one in gateway["listeners"]] == [
        ("http", 80, None),
        ("https", 443, "a.example.com"),
        ("https-1", 443, "b.example.com"),
    ]
    route, redirect = made.only("HTTPRoute", "slipway")["spec"], made.only("HTTPRoute", "slipway-redirect")["spec"]
    assert [parent["sectionName"] for parent in route["parentRefs"]] == ["https", "https-1"]
    assert [parent["sectionName"] for parent in redirect["parentRefs"]] == ["http"]
    (rule,) = redirect["rules"]
    assert rule["filters"] == [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}]
    assert "backendRefs" not in rule
    assert route["hostnames"] == redirect["hostnames"] == ["a.example.com", "b.example.com"]


def test_without_a_certificate_http_is_served(render: Render) -> None:
    made = render(split)
    assert [one["name"] for one in made.only("Gateway")["spec"]["listeners"]] == ["http"]
    assert made.only("HTTPRoute")["spec"]["parentRefs"] == [{"name": "slipway", "sectionName": "http"}]
    assert made.outputs == {"gateway_name": "slipway", "route_name": "slipway"}


def test_a_shared_gateway_is_used_and_left_alone(render: Render) -> None:
    made = render(lambda: split(shared_gateway={"name": "shared", "namespace": "gateways", "section": "https"}))
    assert not made.of("Gateway")
    assert made.only("HTTPRoute")["spec"]["parentRefs"] == [
        {"name": "shared", "namespace": "gateways", "sectionName": "https"}
    ]


def test_cert_manager_is_told_which_issuer(render: Render) -> None:
    made = render(
        lambda: split(hostnames=["a.example.com"], tls={"secret_name": "tls", "cluster_issuer": "letsencrypt"})
    )
    assert made.only("Gateway")["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] == "letsencrypt"


def test_envoy_gateways_policies_come_only_where_it_is_the_gateway(render: Render) -> None:
    """Another implementation does not know their kinds, and the apply would fail."""
    without = render(split)
    assert not [one for one in without.objects if one["apiVersion"].startswith("gateway.envoyproxy.io")]
    made = render(lambda: split(envoy_gateway={"replicas": 3, "service_annotations": {"a": "b"}}))
    proxy = made.only("EnvoyProxy")["spec"]
    assert proxy["mergeType"] == "StrategicMerge", "the proxy's image would be lost"
    assert proxy["provider"]["kubernetes"]["envoyDeployment"] == {"replicas": 3}
    assert proxy["provider"]["kubernetes"]["envoyService"] == {"type": "LoadBalancer", "annotations": {"a": "b"}}
    reference = made.only("Gateway")["spec"]["infrastructure"]["parametersRef"]
    assert (reference["kind"], reference["name"]) == ("EnvoyProxy", "slipway-proxy")
    upstream, clients = made.only("BackendTrafficPolicy")["spec"], made.only("ClientTrafficPolicy")["spec"]
    assert upstream["targetRefs"][0]["kind"] == "HTTPRoute"
    assert "reset" not in upstream["retry"]["retryOn"]["triggers"], "a request that reached an api is not sent again"
    assert "5xx" not in upstream["retry"]["retryOn"]["triggers"]
    assert clients["headers"] == {"requestID": "PreserveOrGenerate"}, "answers of two releases are matched by it"


def test_listeners_admit_routes_of_the_same_namespace_only() -> None:
    assert {one["allowedRoutes"]["namespaces"]["from"] for one in listeners(["a.example.com"], "tls")} == {"Same"}
