"""Api, workers, scaler, policies and secrets as components that another program uses alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pulumi
import pytest
from pulumi_kubernetes import apps

from app.infra.auth import key_id_of
from components.kubernetes.agent_service import AgentService
from components.kubernetes.agent_workers import AgentWorkers
from components.kubernetes.image import built_image
from components.kubernetes.labels import dns_label
from components.kubernetes.namespace import RestrictedNamespace
from components.kubernetes.network import NetworkPolicies
from components.kubernetes.pod import Container, container, pod_template
from components.kubernetes.queue_scaler import QueueScaler
from components.kubernetes.secrets import KeyProvider, ServiceSecrets, StoreKind
from components.traffic import ReleaseTraffic
from stacks.config import REPOSITORY
from stacks.kubernetes import _backend
from tests.support.components import (
    Render,
    Rendered,
    assert_hardened,
    assert_no_secret_in_the_open,
    assert_selected,
    rendering,
)

IMAGE = f"registry.example.com/slipway@sha256:{'a' * 64}"


@pytest.fixture
def render() -> Iterator[Render]:
    with rendering() as run:
        yield run


def service(**more: Any) -> AgentService:
    args = {"namespace": "agents", "release": "stable", "image": IMAGE, "secrets": ["service"], **more}
    return AgentService("api", args)  # type: ignore[arg-type]


def workers(**more: Any) -> AgentWorkers:
    args = {"namespace": "agents", "release": "stable", "image": IMAGE, "secrets": ["service"], **more}
    return AgentWorkers("worker", args)  # type: ignore[arg-type]


def scaler(**more: Any) -> QueueScaler:
    args = {
        "namespace": "agents",
        "deployment": "worker-stable",
        "instance": "stable",
        "queue": "agent-tasks",
        "redis": {"address": "redis.agents:6379"},
        **more,
    }
    return QueueScaler("scaler", args)  # type: ignore[arg-type]


def policies(*edges: Any) -> NetworkPolicies:
    return NetworkPolicies("policies", {"namespace": "agents", "edges": edges})


def test_api_and_workers_alone_are_hardened_and_reachable(render: Render) -> None:
    for program in (service, workers):
        made = render(program)
        assert_hardened(made)
        assert_selected(made)
    assert render(service).outputs == {"service_name": "api-stable", "port": 8000, "deployment_name": "api-stable"}
    assert render(workers).outputs == {"deployment_name": "worker-stable"}


def test_the_service_and_its_pods_agree_on_the_port(render: Render) -> None:
    made = render(service)
    (container,) = made.only("Deployment")["spec"]["template"]["spec"]["containers"]
    (port,) = made.only("Service")["spec"]["ports"]
    assert port["targetPort"] == container["ports"][0]["name"] == "http"
    assert port["port"] == container["ports"][0]["containerPort"]
    assert {"name": "PORT", "value": f"{port['port']:g}"} in container["env"]


def test_liveness_asks_only_the_process_and_readiness_what_it_needs(render: Render) -> None:
    """A liveness probe that asks Redis restarts every api when Redis is away."""
    (container,) = render(service).only("Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readiness"


def test_an_api_that_leaves_is_forgotten_before_it_stops_and_outlives_its_streams(render: Render) -> None:
    made = render(lambda: service(drain_seconds=200))
    spec = made.only("Deployment")["spec"]["template"]["spec"]
    before = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before > 0
    assert spec["terminationGracePeriodSeconds"] > before + 200


def test_workers_name_a_number_only_where_nothing_scales_them(render: Render) -> None:
    assert "replicas" not in render(workers).only("Deployment")["spec"]
    assert render(lambda: workers(replicas=3)).only("Deployment")["spec"]["replicas"] == 3


def test_load_scales_the_api_between_its_numbers(render: Render) -> None:
    made = render(lambda: service(replicas=2, max_replicas=6))
    spec = made.only("HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"], spec["scaleTargetRef"]["name"]) == (2, 6, "api-stable")
    assert "replicas" not in made.only("Deployment")["spec"]
    assert not render(service).of("HorizontalPodAutoscaler")


def test_placement_and_resources_reach_the_pod(render: Render) -> None:
    made = render(
        lambda: workers(
            resources={"cpu": "2", "memory_limit": "4Gi"},
            placement={
                "node_selector": {"pool": "agents"},
                "tolerations": [{"key": "agents", "operator": "Exists"}],
                "priority_class": "high",
                "image_pull_secret": "registry",
            },
        )
    )
    spec = made.only("Deployment")["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["requests"]["cpu"] == "2"
    assert spec["containers"][0]["resources"]["limits"]["memory"] == "4Gi"
    assert spec["containers"][0]["resources"]["limits"]["cpu"] == "1", "what is unsaid has its default"
    assert spec["nodeSelector"] == {"pool": "agents"}
    assert spec["tolerations"] == [{"key": "agents", "operator": "Exists"}]
    assert spec["priorityClassName"] == "high"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        pytest.param(lambda: service(release="Stable"), "release: 'api-Stable' is no name in Kubernetes", id="release"),
        pytest.param(lambda: service(env={"PORT": "1"}), "env: PORT cannot be set", id="variable of ours"),
        pytest.param(lambda: service(secrets=[]), "secrets: the service cannot start without REDIS_URL", id="secrets"),
        pytest.param(lambda: service(replicas=0), "replicas: 0 must be 1 or more", id="no api"),
        pytest.param(lambda: service(replicas=3, max_replicas=2), "replicas: 3 must be .* not above", id="order"),
        pytest.param(lambda: service(drain_seconds=0), "drain_seconds: must be above 0", id="drain"),
        pytest.param(lambda: workers(replicas=0), "replicas: give 1 or more", id="no worker"),
        pytest.param(lambda: scaler(min_replicas=3, max_replicas=2), "min_replicas: 3 must be 0 or more", id="scale"),
        pytest.param(lambda: scaler(runs_per_worker=0), "runs_per_worker: give 1 or more", id="runs per worker"),
        pytest.param(
            lambda: policies({"source": {}, "target": {"component": "a"}, "ports": [1]}),
            "edges: .* names nobody; name one component, namespace or cidr",
            id="edge from nobody",
        ),
        pytest.param(
            lambda: policies({"source": {"namespace": "x"}, "target": {"cidr": "::/0"}, "ports": [1]}),
            "edges: neither end of .* is a component of this namespace",
            id="edge that is not ours",
        ),
        pytest.param(
            lambda: ServiceSecrets(
                "s",
                {"namespace": "n", "values": {"a": "1"}, "store": {"name": "vault", "secrets": {"a": {"key": "k"}}}},
            ),
            "secrets: a come from the stack and from the store",
            id="secret twice",
        ),
        pytest.param(lambda: RestrictedNamespace("n", {"namespace": "No"}), "'No' is no name", id="namespace"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(
    render: Render, program: Callable[[], pulumi.ComponentResource], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        render(program)


def test_the_hardened_pod_cannot_be_softened() -> None:
    """There is no argument for it; what there is refuses what would weaken it."""
    defaults: Any = dict.fromkeys(("cpu", "memory", "cpu_limit", "memory_limit", "storage", "storage_limit"), "1")
    made = container(Container(name="c", image=IMAGE, resources={}, defaults=defaults, probes=None))
    del defaults["storage_limit"]
    with pytest.raises(ValueError, match="neither a value nor a default for storage_limit"):
        container(Container(name="c", image=IMAGE, resources={}, defaults=defaults, probes=None))
    with pytest.raises(ValueError, match="user and group: 0:10001 may be a user of the node"):
        pod_template(labels={}, selector={}, containers=[made], user=0)
    with pytest.raises(ValueError, match="grace_seconds: 30 s would cut work short"):
        pod_template(labels={}, selector={}, containers=[made], grace_seconds=30)


def test_a_scaler_knows_the_password_only_by_reference(render: Render) -> None:
    made = render(
        lambda: scaler(
            redis={
                "address": "redis.agents:6379",
                "secret_name": "redis-passwords",
                "password_key": "scaler",
                "username": "scaler",
                "tls": True,
                "ca_secret_name": "redis-tls",
            },
            min_replicas=0,
        )
    )
    trigger = made.only("ScaledObject")["spec"]["triggers"][0]
    assert trigger["metadata"]["username"] == "scaler"
    assert trigger["metadata"]["enableTLS"] == "true"
    assert made.only("TriggerAuthentication")["spec"]["secretTargetRef"] == [
        {"parameter": "password", "name": "redis-passwords", "key": "scaler"},
        {"parameter": "ca", "name": "redis-tls", "key": "ca.crt"},
    ]
    assert made.only("ScaledObject")["spec"]["fallback"]["replicas"] == 1, "a Redis that is away must not end workers"


def test_a_scaler_without_a_password_asks_for_none(render: Render) -> None:
    made = render(scaler)
    assert not made.of("TriggerAuthentication")
    assert "authenticationRef" not in made.only("ScaledObject")["spec"]["triggers"][0]


def test_a_policy_opens_both_ends_of_an_edge_and_dns_for_who_asks(render: Render) -> None:
    edge = {"source": {"component": "api"}, "target": {"component": "redis"}, "ports": [6379]}
    made = render(
        lambda: NetworkPolicies("p", {"namespace": "n", "edges": [edge, edge], "dns": {"cidr": "169.254.20.10/32"}})  # type: ignore[list-item]
    )
    asks, answers = made.only("NetworkPolicy", "api")["spec"], made.only("NetworkPolicy", "redis")["spec"]
    assert asks["ingress"] == []
    assert [rule["ports"] for rule in asks["egress"]] == [
        [{"protocol": "TCP", "port": 6379}],
        [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    ]
    assert asks["egress"][1]["to"] == [{"ipBlock": {"cidr": "169.254.20.10/32"}}]
    assert len(answers["ingress"]) == 1
    assert answers["egress"] == []
    assert made.outputs == {"components": ["api", "redis"]}


def test_secrets_of_the_stack_are_marked_immutable_and_named_anew(render: Render) -> None:
    def program() -> ServiceSecrets:
        return ServiceSecrets("service", {"namespace": "n", "values": {"redis_url": "redis://hush"}})

    made = render(program)
    assert_no_secret_in_the_open(made, "redis://hush")
    assert made.outputs == {"names": ["service-stack-generated"]}


def test_a_store_is_asked_for_each_file(render: Render) -> None:
    made = render(
        lambda: ServiceSecrets(
            "service",
            {
                "namespace": "n",
                "store": {
                    "name": "vault",
                    "kind": StoreKind.NAMESPACE,
                    "secrets": {"b": {"key": "k", "property": "p"}, "a": {"key": "k"}},
                },
            },
        )
    )
    spec = made.only("ExternalSecret")["spec"]
    assert spec["secretStoreRef"] == {"name": "vault", "kind": "SecretStore"}
    assert spec["data"] == [
        {"secretKey": "a", "remoteRef": {"key": "k"}},
        {"secretKey": "b", "remoteRef": {"key": "k", "property": "p"}},
    ]
    assert made.outputs == {"names": [spec["target"]["name"]]}


def test_the_first_key_has_the_form_that_the_service_registers() -> None:
    """And it is made once: another would lock everybody out."""
    created = KeyProvider().create({"key": None})
    assert created.outs is not None
    assert key_id_of(created.outs["key"]) == created.id
    assert not KeyProvider().diff("", {"key": "old"}, {"key": None}).changes


def test_a_namespace_of_somebody_else_is_not_made(render: Render) -> None:
    def made(**more: Any) -> Rendered:
        return render(lambda: RestrictedNamespace("n", {"namespace": "agents", **more}))  # type: ignore[typeddict-item]

    assert made().only("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert not made(create=False).of("Namespace")
    assert made(create=False).only("NetworkPolicy")["metadata"]["namespace"] == "agents"
    assert not made(deny_by_default=False).of("NetworkPolicy")


def test_a_name_that_kubernetes_would_refuse_is_refused_before() -> None:
    assert dns_label("api-stable", "x") == "api-stable"
    for wrong in ("", "-a", "a-", "A", "a_b", "a" * 64, "a.b"):
        with pytest.raises(ValueError, match="is no name in Kubernetes"):
            dns_label(wrong, "x")


def test_an_image_is_pushed_named_by_digest_and_not_built_by_a_preview(render: Render) -> None:
    """A preview that builds takes minutes, and needs a builder where there may be none."""
    seen: list[dict[str, Any]] = []

    def watch(args: pulumi.ResourceTransformationArgs) -> None:
        if args.type_ == "docker-build:index:Image":
            seen.append(dict(args.props))

    def program() -> None:
        pulumi.runtime.register_stack_transformation(watch)
        built_image("image", folder=REPOSITORY, repository="ghcr.io/acme/slipway", tag="prod", cache=True)

    render(program)
    (image,) = seen
    assert image["build_on_preview"] is False
    assert image["push"] is True
    assert image["tags"] == ["ghcr.io/acme/slipway:prod"]
    assert image["cache_to"]


def test_a_release_without_requests_is_not_waited_for(render: Render) -> None:
    """Taking them from a release that is broken must not wait until that release is well; giving it some must."""
    waits: dict[int, bool] = {}

    async def note(weight: int, service: AgentService) -> int:
        named = pulumi.Output.from_input(_backend(ReleaseTraffic(name="stable", weight=weight), service)["service"])
        resources = await named.resources()
        waits[weight] = any(isinstance(resource, apps.v1.Deployment) for resource in resources)
        return weight

    def program() -> AgentService:
        made = service()
        for weight in (0, 1):
            noted: pulumi.Output[int] = pulumi.Output.from_input(note(weight, made))
            noted.apply(str)
        return made

    render(program)
    assert waits == {0: False, 1: True}
