"""A whole stack on Kubernetes, rendered: what holds for every object, whatever the configuration says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pulumi
import pytest
from pulumi.runtime.mocks import MockResourceArgs
from pulumi_kubernetes import core

from components.traffic import shadow_prefix
from stacks import render as module
from stacks.config import ConfigError, StackConfig
from stacks.kubernetes import build
from stacks.outputs import export
from stacks.render import MADE_UP, ORDER, Rendered, render
from tests.support import components
from tests.support.components import assert_hardened, assert_selected
from tests.support.kubernetes_stacks import (
    IMAGE,
    MODEL_KEY,
    REDIS_PASSWORD,
    VARIANTS,
    objects,
    pods,
    rendered,
    stack,
)


@pytest.fixture(params=list(VARIANTS))
def made(request: pytest.FixtureRequest) -> Rendered:
    """Each variant, rendered."""
    return rendered(request.param)


def as_made(made: Rendered) -> components.Rendered:
    """For the rules that hold for components alone, too."""
    return components.Rendered([{**one, "pulumi_name": one["metadata"]["name"]} for one in made.objects])


# Pods


def test_every_pod_is_hardened(made: Rendered) -> None:
    """One container that is not is the way in."""
    assert_hardened(as_made(made))


BY_VERSION = ("rclone/rclone", "vllm/vllm-openai")
"""Default images that have a version and no digest yet; a configuration names its own by digest."""


def test_every_image_is_named_by_digest_and_pulled_once(made: Rendered) -> None:
    """A tag may be another image tomorrow."""
    for where, template in pods(made).items():
        for container in [*template["spec"]["containers"], *template["spec"].get("initContainers", [])]:
            image = container["image"]
            name, _, version = image.partition(":")
            by_version = name in BY_VERSION and re.fullmatch(r"v?[0-9]+(\.[0-9]+)+", version)
            assert by_version or re.search(r"@sha256:[0-9a-f]{64}$", image), f"{where} runs {image}"
            assert container["imagePullPolicy"] == "IfNotPresent"


def test_no_pod_shares_anything_of_its_node(made: Rendered) -> None:
    for where, template in pods(made).items():
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys(), where
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume], where


def test_services_budgets_and_workloads_select_pods_that_there_are(made: Rendered) -> None:
    assert_selected(as_made(made))


def test_every_deployment_and_stateful_set_may_be_drained_pod_by_pod(made: Rendered) -> None:
    """A budget that lets none go holds a node for ever; no budget lets all go at once."""
    budgets = [one["spec"] for one in objects(made, "PodDisruptionBudget").values()]
    for one in made.objects:
        if one["kind"] in ("Deployment", "StatefulSet"):
            labels = one["spec"]["template"]["metadata"]["labels"]
            covering = [spec for spec in budgets if spec["selector"]["matchLabels"].items() <= labels.items()]
            assert len(covering) == 1, one["metadata"]["name"]
            assert covering[0].get("maxUnavailable") not in (None, 0, "0%"), one["metadata"]["name"]


# Secrets


def test_no_secret_stands_in_an_object(made: Rendered) -> None:
    """What is rendered is committed and reviewed."""
    text = json.dumps([made.objects, dict(made.outputs)])
    for secret in (MODEL_KEY, REDIS_PASSWORD, "of-the-qdrant-elsewhere", "ls-hush", MADE_UP):
        assert secret not in text
    assert made.outputs["apiKey"].startswith("${")


def test_every_value_of_a_secret_is_a_reference_of_its_own(made: Rendered) -> None:
    named = [value for one in objects(made, "Secret").values() for value in one["stringData"].values()]
    assert all(re.fullmatch(r"\$\{[A-Z0-9_]+\}", value) for value in named)
    assert len(set(named)) == len(named)
    assert made.references == tuple(sorted(named))


def test_no_secret_is_a_variable_or_an_argument(made: Rendered) -> None:
    """Both are read by whoever lists the pod."""
    for where, template in pods(made).items():
        for container in [*template["spec"]["containers"], *template["spec"].get("initContainers", [])]:
            for variable in container.get("env", []):
                assert "valueFrom" not in variable or "secretKeyRef" not in variable["valueFrom"], where
                assert not re.search(r"(PASSWORD|TOKEN|KEY|SECRET)$", variable["name"]), f"{where} {variable['name']}"


def test_every_secret_that_a_pod_mounts_is_made_or_is_the_cluster_s(made: Rendered) -> None:
    """A pod that waits for a Secret that nobody makes waits for ever."""
    there = set(objects(made, "Secret")) | {
        one["spec"]["target"]["name"] for one in objects(made, "ExternalSecret").values()
    }
    for where, template in pods(made).items():
        for volume in template["spec"]["volumes"]:
            names = [volume["secret"]["secretName"]] if "secret" in volume else []
            names += [part["secret"]["name"] for part in volume.get("projected", {}).get("sources", [])]
            assert set(names) <= there | {"otlp-headers"}, f"{where} mounts {names}"


def leaks(program: Callable[[], object]) -> set[str]:
    """What the renderer says of a program's secrets."""
    engine = module._Recorder()

    def run() -> None:
        program()

    module._run(engine, "test", run)
    assert "hush" not in json.dumps(engine.objects)
    return engine.leaks


def test_a_secret_in_another_object_is_refused() -> None:
    """The rule is kept by the renderer, not by care."""
    found = leaks(lambda: core.v1.ConfigMap("leaky", data={"key": pulumi.Output.secret("hush")}))
    assert found == {"ConfigMap leaky.data is a secret, and would stand in clear"}


def test_a_secret_in_a_secret_is_named_by_where_it_stands() -> None:
    assert not leaks(lambda: core.v1.Secret("kept", string_data={"key": "hush"}))


# Scaling


def test_what_something_scales_names_no_replicas(made: Rendered) -> None:
    """A number would put the count back at every deploy."""
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in objects(made, "ScaledObject").values()}
    scaled |= {one["spec"]["scaleTargetRef"]["name"] for one in objects(made, "HorizontalPodAutoscaler").values()}
    deployments = objects(made, "Deployment")
    assert scaled <= deployments.keys()
    for name, one in deployments.items():
        assert ("replicas" in one["spec"]) != (name in scaled), name


def test_each_scaler_counts_the_queue_of_its_release(made: Rendered) -> None:
    """Or workers would come for another's runs."""
    for name, one in objects(made, "ScaledObject").items():
        release = name.removeprefix("worker-")
        expected = "agent-tasks" if release == "stable" else f"{{agent-tasks}}:q:{release}"
        (trigger,) = one["spec"]["triggers"]
        assert trigger["metadata"]["listName"] == expected
        assert trigger["metadata"]["listLength"] == "5"
        assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA takes text only"
        assert "password" not in trigger["metadata"]
        assert one["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"
        assert one["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert trigger["authenticationRef"]["name"] in objects(made, "TriggerAuthentication")


def test_a_shadow_is_scaled_by_the_queue_under_its_prefix() -> None:
    releases = {"stable": {"weight": 100}, "next": {"mirrorPercent": 5}}
    made = render(stack(releases=releases), "test")
    trigger = objects(made, "ScaledObject")["worker-next"]["spec"]["triggers"][0]
    assert trigger["metadata"]["listName"] == f"{shadow_prefix('next')}{{agent-tasks}}:q:next"


def test_one_number_of_workers_is_a_number_and_needs_no_scaler() -> None:
    made = rendered("all releases")
    assert objects(made, "Deployment")["worker-next"]["spec"]["replicas"] == 3
    assert "worker-next" not in objects(made, "ScaledObject")


def test_the_defaults_are_2_to_50_workers() -> None:
    spec = objects(rendered("all releases"), "ScaledObject")["worker-stable"]["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 50)


def test_a_draining_release_has_workers_that_may_all_go_and_no_api() -> None:
    made = rendered("all releases")
    assert objects(made, "ScaledObject")["worker-old"]["spec"]["minReplicaCount"] == 0
    assert "api-old" not in objects(made, "Deployment")
    assert "api-old" not in json.dumps(objects(made, "HTTPRoute"))


# Releases


def container_of(made: Rendered, deployment: str) -> dict[str, Any]:
    found: dict[str, Any] = objects(made, "Deployment")[deployment]["spec"]["template"]["spec"]["containers"][0]
    return found


def env_of(made: Rendered, deployment: str) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container_of(made, deployment)["env"]}


def test_a_release_has_its_own_settings_and_image() -> None:
    made = rendered("all releases")
    assert env_of(made, "api-next")["PROMPT_VERSION"] == env_of(made, "worker-next")["PROMPT_VERSION"] == "2"
    assert "PROMPT_VERSION" not in env_of(made, "api-stable")
    assert container_of(made, "api-canary")["image"].startswith("other@")
    assert container_of(made, "worker-stable")["image"] == IMAGE
    for name in ("api-stable", "worker-stable"):
        assert env_of(made, name)["RELEASE"] == "stable"


def test_only_a_shadow_writes_under_a_prefix() -> None:
    made = rendered("all releases")
    for name in objects(made, "Deployment"):
        if name.startswith(("api-", "worker-")):
            prefix = "shadow:next:" if name.endswith("-next") else None
            assert env_of(made, name).get("REDIS_KEY_PREFIX") == prefix, name


def test_the_pods_outlive_their_own_time_to_drain() -> None:
    """A shorter grace would kill what the process still finishes."""
    made = render(stack(env={"DRAIN_SECONDS": 300}), "test")
    for name in ("api-stable", "worker-stable"):
        spec = objects(made, "Deployment")[name]["spec"]["template"]["spec"]
        assert env_of(made, name)["DRAIN_SECONDS"] == "300"
        assert spec["terminationGracePeriodSeconds"] >= 300 + 5
    before = rendered("all releases")
    for name in ("api-stable", "worker-stable"):
        spec = objects(before, "Deployment")[name]["spec"]["template"]["spec"]
        assert float(env_of(before, name)["DRAIN_SECONDS"]) + 5 < spec["terminationGracePeriodSeconds"] == 120


def test_only_the_container_that_registers_the_first_key_sees_it() -> None:
    for where, template in pods(rendered("all releases")).items():
        spec = template["spec"]
        if any(volume["name"] == "first-key" for volume in spec["volumes"]):
            assert where.startswith("Deployment api-")
            assert [container["name"] for container in spec["initContainers"]] == ["first-key"]
            assert "first-key" not in [mount["name"] for mount in spec["containers"][0]["volumeMounts"]]


def test_a_rollout_takes_no_pod_away_before_a_new_one_is_ready(made: Rendered) -> None:
    for name, one in objects(made, "Deployment").items():
        if name.startswith(("api-", "worker-")):
            assert one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


# The route


def test_weights_sum_to_100_and_no_stream_has_an_end(made: Rendered) -> None:
    """An unset timeout ends each stream after 15 s; a backend of weight 0 stays, so that raising it is one write."""
    route = objects(made, "HTTPRoute")["slipway"]
    serving = {one for one in objects(made, "Service") if one.startswith("api-")} - {"api-next"}
    for rule in route["spec"]["rules"]:
        assert rule["timeouts"] == {"request": "0s"}
        if not rule["name"].startswith("pin-"):
            assert sum(backend["weight"] for backend in rule["backendRefs"]) == 100
            assert {backend["name"] for backend in rule["backendRefs"]} == serving


def test_every_backend_is_a_service_of_an_api(made: Rendered) -> None:
    services = objects(made, "Service")
    for rule in objects(made, "HTTPRoute")["slipway"]["spec"]["rules"]:
        mirrored = [part["requestMirror"]["backendRef"] for part in rule.get("filters", [])]
        for backend in [*rule["backendRefs"], *mirrored]:
            assert backend["port"] in [port["port"] for port in services[backend["name"]]["spec"]["ports"]]


# The namespace and its policies


def test_the_namespace_enforces_restricted_pods() -> None:
    labels = objects(rendered("all releases"), "Namespace")["slipway"]["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_everything_lies_in_the_namespace(made: Rendered) -> None:
    outside = [one for one in made.objects if one["metadata"].get("namespace") != "slipway"]
    assert [one["kind"] for one in outside] in ([], ["Namespace"])


def edges(made: Rendered) -> set[tuple[str, str, int]]:
    """(who asks, who answers, port) of all policies; both ends of an edge inside the namespace must agree."""
    ways: dict[str, set[tuple[str, str, int]]] = {"in": set(), "out": set()}
    for name, one in objects(made, "NetworkPolicy").items():
        if name == "default-deny":
            continue
        for way, rules, end in (("in", "ingress", "from"), ("out", "egress", "to")):
            for rule in one["spec"].get(rules) or []:
                for peer in rule[end]:
                    for port in rule["ports"]:
                        other = peer_name(peer)
                        ways[way].add((other, name, port["port"]) if way == "in" else (name, other, port["port"]))
    inside = {name for name in objects(made, "NetworkPolicy") if name != "default-deny"}
    for source, target, port in ways["in"] | ways["out"]:
        if source in inside and target in inside:
            assert (source, target, port) in ways["in"] & ways["out"], f"{source} → {target}:{port} is open at one end"
    return ways["in"] | ways["out"]


def peer_name(peer: dict[str, Any]) -> str:
    if "ipBlock" in peer:
        return str(peer["ipBlock"]["cidr"])
    if "namespaceSelector" in peer:
        return "ns/" + str(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
    return str(peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"])


INTERNET = "0.0.0.0/0"
DNS = "ns/kube-system"


def test_the_policies_are_the_edges_of_the_architecture_and_no_others() -> None:
    assert edges(rendered("all releases")) == {
        ("ns/envoy-gateway-system", "api", 8000),
        ("api", "redis", 6379),
        ("api", "qdrant", 6333),
        ("api", "collector", 4318),
        ("api", INTERNET, 443),
        ("api", DNS, 53),
        ("worker", "redis", 6379),
        ("worker", "qdrant", 6333),
        ("worker", "collector", 4318),
        ("worker", INTERNET, 443),
        ("worker", DNS, 53),
        ("ns/keda", "redis", 6379),
        ("ns/monitoring", "collector", 8888),
        ("ns/monitoring", "collector", 8889),
        ("backup", "redis", 6379),
        ("backup", "qdrant", 6333),
        ("backup", DNS, 53),
    }


def test_a_stack_that_brings_its_own_data_services_has_edges_to_them_alone() -> None:
    outside = {("api", "10.0.0.0/8"), ("worker", "10.0.0.0/8"), ("api", DNS), ("worker", DNS)}
    found = edges(rendered("everything elsewhere"))
    assert {(source, target) for source, target, _ in found} == outside | {("ns/envoy-gateway-system", "api")}


def test_the_collector_and_backups_reach_out_only_where_they_send() -> None:
    found = edges(rendered("everything of its own"))
    assert ("collector", INTERNET, 443) in found
    assert ("backup", INTERNET, 443) in found
    assert ("api", "model-server", 8000) in found
    assert not {source for source, target, _ in edges(rendered("all releases")) if target == INTERNET} - {
        "api",
        "worker",
    }


def test_every_pod_has_a_policy_and_every_policy_pods(made: Rendered) -> None:
    """A pod without one is cut off by the denial; a policy without pods is a label that is spelt wrongly."""
    policies = objects(made, "NetworkPolicy")
    assert policies["default-deny"]["spec"]["podSelector"] == {}
    assert set(policies["default-deny"]["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    kinds = {template["metadata"]["labels"]["app.kubernetes.io/component"] for template in pods(made).values()}
    assert set(policies) - {"default-deny"} == kinds
    for name, one in policies.items():
        if name != "default-deny":
            assert one["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == name
            assert set(one["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def test_the_internet_is_not_the_private_networks() -> None:
    """Cloud metadata and the cluster's own addresses are not for whom a prompt has talked into asking them."""
    for one in objects(rendered("all releases"), "NetworkPolicy").values():
        for rule in one["spec"].get("egress") or []:
            for peer in rule["to"]:
                if peer.get("ipBlock", {}).get("cidr") == INTERNET:
                    assert {"169.254.0.0/16", "10.0.0.0/8"} <= set(peer["ipBlock"]["except"])


def test_without_policies_there_is_none() -> None:
    made = render(stack({"network": {"policies": False}}), "test")
    assert not objects(made, "NetworkPolicy")


# Names, order, sameness


def test_what_others_do_not_name_is_immutable_and_named_by_its_content(made: Rendered) -> None:
    """So that a change is a rollout."""
    for kind in ("ConfigMap", "Secret"):
        for name, one in objects(made, kind).items():
            assert one["immutable"] is True
            assert re.search(r"-[0-9a-f]{8}$", name), name


def test_another_content_is_another_name() -> None:
    def config_map(percent: int) -> set[str]:
        made = render(stack({"collector": {"percent": percent}}), "test")
        return {name for name in objects(made, "ConfigMap") if name.startswith("otel-collector")}

    assert config_map(10).isdisjoint(config_map(20))


def test_rendering_twice_gives_the_same_text() -> None:
    again = render(VARIANTS["all releases"], "test")
    assert json.dumps(again.objects) == json.dumps(rendered("all releases").objects)


def test_objects_come_in_an_order_in_which_they_can_be_applied(made: Rendered) -> None:
    ranks = [ORDER.index(one["kind"]) for one in made.objects]
    assert ranks == sorted(ranks)
    names = [(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in made.objects]
    assert len(set(names)) == len(names)


def test_what_pulumi_alone_understands_is_left_out(made: Rendered) -> None:
    assert "pulumi.com/" not in json.dumps(made.objects)


def test_the_outputs_are_those_of_every_platform() -> None:
    outputs = rendered("everything of its own").outputs
    assert outputs["serviceUrl"] == "https://agent.example.com"
    assert outputs["streamUrl"] == "https://agent.example.com/api/stream"
    assert outputs["docsUrl"] == "https://agent.example.com/docs"
    assert outputs["healthUrl"] == "https://agent.example.com/readiness"
    assert outputs["releases"]["stable"] == {"role": "serving", "weight": 100, "workers": {"min": 2, "max": 50}}
    assert rendered("everything elsewhere").outputs["serviceUrl"] == "http://127.0.0.1:8080"


def test_a_platform_without_manifests_says_so() -> None:
    with pytest.raises(ConfigError, match="render a stack of the platform kubernetes"):
        render(StackConfig(), "dev")


def test_keeping_data_moves_nothing_to_another_provider() -> None:
    """Pulumi replaces what moves: turning it on for a stack that runs would end the namespace, and all in it."""
    providers: dict[bool, list[str]] = {}
    for keep in (False, True):
        engine = Watching()
        configuration = stack(keepData=keep)
        module._run(engine, "test", lambda: export(configuration, build(configuration)))  # noqa: B023 - run at once
        providers[keep] = engine.providers
    assert providers[False] == providers[True] == ["cluster"]


class Watching(module._Recorder):
    """Remembers the providers of Kubernetes objects."""

    def __init__(self) -> None:
        super().__init__()
        self.providers: list[str] = []

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if args.typ == "pulumi:providers:kubernetes":
            self.providers.append(args.name)
        return super().new_resource(args)


def test_data_that_are_kept_keep_their_claims() -> None:
    """`pulumi destroy` must not take what the configuration says to keep."""
    for variant, expected in (("everything of its own", "Retain"), ("all releases", "Delete")):
        for one in objects(rendered(variant), "StatefulSet").values():
            assert one["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == expected
