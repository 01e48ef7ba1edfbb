"""Kubernetes components without a cluster: what they ask the engine for, as plain objects, and the rules for all pods.

with rendering() as render:
    rendered = render(lambda: Redis("redis", {"namespace": "agents", "password": PASSWORD}))
    rendered.only("StatefulSet")["spec"]["replicas"]
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pulumi
from pulumi.runtime import mocks, rpc
from pulumi.runtime.stack import run_pulumi_func

_VERSION = "1.30"
"""The oldest Kubernetes that has all that the components use."""


@dataclass
class Rendered:
    """What a program asked for: Kubernetes objects (secrets unwrapped), and each component's outputs."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    """Every string that went to the engine marked as secret."""
    outputs: dict[str, Any] = field(default_factory=dict)
    secret_outputs: set[str] = field(default_factory=set)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [found for found in self.objects if found["kind"] == kind]

    def only(self, kind: str, name: str | None = None) -> dict[str, Any]:
        """The one object of that kind (and name, Kubernetes' or Pulumi's)."""
        found = [
            one for one in self.of(kind) if name is None or name in (one["metadata"].get("name"), one["pulumi_name"])
        ]
        assert len(found) == 1, f"{len(found)} objects are {kind} {name or ''}: {[o['pulumi_name'] for o in found]}"
        return found[0]

    def pods(self) -> list[tuple[str, dict[str, Any]]]:
        """Each pod template's spec, with a name that tells which."""
        found = []
        for one in self.objects:
            spec = one.get("spec", {})
            match one["kind"]:
                case "Deployment" | "StatefulSet" | "Job":
                    template = spec["template"]
                case "CronJob":
                    template = spec["jobTemplate"]["spec"]["template"]
                case _:
                    continue
            found.append((f"{one['kind']} {one['pulumi_name']}", template["spec"]))
        return found


class _Engine(mocks.Mocks):
    def __init__(self, rendered: Rendered) -> None:
        self._rendered = rendered

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        inputs = {key: self._plain(value) for key, value in args.inputs.items()}
        if args.typ.startswith("kubernetes:"):
            metadata = {**inputs.get("metadata", {})}
            inputs["metadata"] = {"name": f"{args.name}-generated", **metadata}
            self._rendered.objects.append({**inputs, "metadata": metadata, "pulumi_name": args.name})
        return f"{args.name}-id", inputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        raise AssertionError(f"a component calls {args.token}")

    def _plain(self, value: Any, secret: bool = False) -> Any:
        """Without the wrapping that marks a secret on its way to the engine."""
        if isinstance(value, dict):
            if rpc._special_sig_key in value:
                return self._plain(value["value"], secret=True)
            return {key: self._plain(part, secret) for key, part in value.items()}
        if isinstance(value, list):
            return [self._plain(part, secret) for part in value]
        if secret and isinstance(value, str):
            self._rendered.secrets.append(value)
        return value


Render = Callable[[Callable[[], pulumi.ComponentResource | None]], Rendered]


@contextmanager
def rendering(project: str = "slipway") -> Iterator[Render]:
    """Gives a function that runs a program under mocks; loops that Pulumi's mocks make are closed in the end."""
    made: list[asyncio.AbstractEventLoop] = []
    new_event_loop = asyncio.new_event_loop

    def recorded() -> asyncio.AbstractEventLoop:
        made.append(new_event_loop())
        return made[-1]

    asyncio.new_event_loop = recorded
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    def render(program: Callable[[], pulumi.ComponentResource | None]) -> Rendered:
        rendered = Rendered()
        component: list[pulumi.ComponentResource | None] = []

        async def run() -> None:
            mocks.set_mocks(_Engine(rendered), project=project, stack="test", preview=False)
            await run_pulumi_func(lambda: component.append(program()))
            if component[0] is not None:
                for name in [name for name in type(component[0]).__annotations__ if not name.startswith("_")]:
                    output = pulumi.Output.from_input(getattr(component[0], name))
                    rendered.outputs[name] = await output.future()
                    if await output.is_secret():
                        rendered.secret_outputs.add(name)

        loop.run_until_complete(run())
        return rendered

    try:
        yield render
    finally:
        asyncio.new_event_loop = new_event_loop
        loop.run_until_complete(loop.shutdown_default_executor())
        for one in made:
            one.close()
        asyncio.set_event_loop(None)


def assert_valid(rendered: Rendered) -> None:
    """Each object fulfils Kubernetes' own schema: a field that does not exist would be found by a cluster only."""
    for one in rendered.objects:
        manifest = {key: value for key, value in one.items() if key != "pulumi_name"}
        try:
            kubernetes_validate.validate(manifest, _VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(f"{one['kind']} {one['pulumi_name']}: {list(error.path)}: {error.message}") from error


def assert_hardened(rendered: Rendered) -> None:
    """Each pod fulfils the Pod Security Standard `restricted`, and what is ours beyond it."""
    pods = rendered.pods()
    assert pods, "nothing was rendered that runs"
    for where, pod in pods:
        assert pod["automountServiceAccountToken"] is False, where
        assert pod["terminationGracePeriodSeconds"] >= 120, where
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, where
        assert context["runAsUser"] > 10_000, where
        assert context["fsGroup"] == context["runAsGroup"], f"{where}: its volumes must belong to its group"
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            name = f"{where} {container['name']}"
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            for kind in ("requests", "limits"):
                assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"][kind].keys(), name
            mounted = {mount["name"] for mount in container["volumeMounts"]} - {"data"}
            assert mounted <= volumes | {"data"}, f"{name} mounts {mounted - volumes}, which the pod does not have"
        if pod["restartPolicy"] == "Always":
            for container in pod["containers"]:
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys(), where


def assert_selected(rendered: Rendered) -> None:
    """Each Service and budget selects pods that there are, and no selector holds what may change."""
    labelled = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in rendered.objects
        if one["kind"] in ("Deployment", "StatefulSet")
    ]
    for one in rendered.objects:
        match one["kind"]:
            case "Service":
                selector = one["spec"]["selector"]
            case "PodDisruptionBudget" | "Deployment" | "StatefulSet":
                selector = one["spec"]["selector"]["matchLabels"]
            case _:
                continue
        assert not any("version" in key for key in selector), one["pulumi_name"]
        matching = [labels for labels in labelled if selector.items() <= labels.items()]
        assert matching, f"{one['kind']} {one['pulumi_name']} selects nothing"


def assert_no_secret_in_the_open(rendered: Rendered, *secrets: str) -> None:
    """Secrets stand only in Secrets, where they are marked for the engine: not in pods, ConfigMaps or names."""
    for one in rendered.objects:
        text = repr(one)
        for secret in secrets:
            if one["kind"] == "Secret":
                continue
            assert secret not in text, f"{one['kind']} {one['pulumi_name']} holds a secret"
    for one in rendered.of("Secret"):
        assert one.get("immutable") is True, "a change must be a new Secret"
        assert "name" not in one["metadata"], "a change must be a new Secret"
        for value in one["stringData"].values():
            assert value in rendered.secrets, f"Secret {one['pulumi_name']} goes to the engine in the open"
    for one in rendered.of("ConfigMap"):
        assert one.get("immutable") is True, "a change must be a new ConfigMap"
        assert "name" not in one["metadata"], "a change must be a new ConfigMap"
