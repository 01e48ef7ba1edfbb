"""The objects of a stack on Kubernetes as plain data, without an engine, a cluster or a secret.

The program runs under Pulumi's mocks, so what is rendered is what `pulumi up` would ask for. Where a value is secret,
a reference stands in its place: `${SERVICE_STACK_REDIS_URL}` is the key `redis_url` of the Secret `service-stack`.
Only Secrets may hold one; anything else that does is an error. Names that Pulumi would make up are made of the content
instead: another content, another name, and the same content rendered twice is the same text.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pulumi
from pulumi.runtime import mocks, rpc, settings
from pulumi.runtime.stack import Stack, run_pulumi_func

from stacks.config import ConfigError, PlatformName, StackConfig
from stacks.outputs import export
from stacks.program import BUILDERS

Object = dict[str, Any]
PULUMI_ANNOTATIONS = "pulumi.com/"
"""How Pulumi waits for an object: of no meaning to a cluster."""

ORDER = (
    *("Namespace", "NetworkPolicy", "ServiceAccount", "ExternalSecret", "Secret", "ConfigMap", "PersistentVolumeClaim"),
    *("Service", "PodDisruptionBudget", "StatefulSet", "Deployment", "Job", "CronJob", "HorizontalPodAutoscaler"),
    *("TriggerAuthentication", "ScaledObject", "EnvoyProxy", "Gateway", "ClientTrafficPolicy", "HTTPRoute"),
    "BackendTrafficPolicy",
)
"""What is applied first: each kind after what it rests on."""

MADE_UP = "made-up-where-the-provider-would-make-one-"
"""How passwords and keys begin that only a provider makes."""
_HASH_DIGITS = 8


class SecretInClear(Exception):
    """An object that is no Secret would hold a secret."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a stack is made of."""

    objects: list[Object]
    """In the order of `ORDER`, then by name."""
    outputs: Mapping[str, Any]
    """The stack's outputs; a secret one is a reference."""
    references: tuple[str, ...]
    """The references in the objects, sorted: what must be filled in."""


def render(stack: StackConfig, name: str) -> Rendered:
    """All objects of the stack `name`. Raises ConfigError when its platform has none, SecretInClear, ValueError."""
    if stack.platform is not PlatformName.KUBERNETES:
        raise ConfigError(
            f"slipway:platform: {stack.platform} has no manifests; render a stack of the platform kubernetes"
        )
    engine = _Recorder()
    outputs = _run(engine, name, lambda: export(stack, BUILDERS[stack.platform](stack)))
    if engine.leaks:
        raise SecretInClear("; ".join(sorted(engine.leaks)))
    objects = sorted(engine.objects, key=_position)
    return Rendered(objects, outputs, tuple(sorted(set(re.findall(r"\$\{[A-Z0-9_]+\}", json.dumps(objects))))))


def _position(rendered: Object) -> tuple[int, str, str]:
    kind = rendered["kind"]
    return ORDER.index(kind) if kind in ORDER else len(ORDER), kind, rendered["metadata"]["name"]


def reference(*parts: str) -> str:
    """What stands in place of a secret."""
    return "${" + re.sub(r"[^A-Z0-9]+", "_", "_".join(parts).upper()) + "}"


class _Recorder(mocks.Mocks):
    """Pulumi without an engine: keeps what is asked for, and answers as a cluster would."""

    def __init__(self) -> None:
        self.objects: list[Object] = []
        self.leaks: set[str] = set()

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        inputs = {key: value for key, value in args.inputs.items() if not key.startswith("__")}
        if args.typ.startswith("kubernetes:"):
            return self._object(args.name, inputs)
        if args.typ.startswith("pulumi-python:"):
            # What a dynamic provider of ours makes up, passwords and keys; none of it may come out.
            return args.name, {**inputs, "value": f"{MADE_UP}{args.name}", "key": f"{MADE_UP}{args.name}"}
        if args.typ == "docker-build:index:Image":
            return args.name, {**inputs, "ref": f"{inputs['tags'][0]}@{reference(args.name, 'digest')}"}
        return args.name, inputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        raise AssertionError(f"the program calls {args.token}")

    def _object(self, resource: str, inputs: Object) -> tuple[str, Object]:
        metadata = {key: value for key, value in inputs.get("metadata", {}).items() if key != "annotations"}
        annotations = {
            key: value
            for key, value in inputs.get("metadata", {}).get("annotations", {}).items()
            if not key.startswith(PULUMI_ANNOTATIONS)
        }
        if annotations:
            metadata["annotations"] = annotations
        plain = {**inputs, "metadata": metadata}
        if inputs["kind"] == "Secret":
            # The SDK marks these two as secret, whatever is in them.
            held = [inputs[part]["value"] for part in ("data", "stringData") if part in inputs]
            named = {key: reference(resource, key) for part in held for key in part}
            plain = {key: value for key, value in plain.items() if key not in ("data", "stringData")}
            plain["stringData"] = named
        rendered = self._without_secrets(plain, f"{inputs['kind']} {resource}")
        if "name" not in metadata:
            rendered["metadata"]["name"] = f"{resource}-{_digest(rendered)}" if inputs.get("immutable") else resource
        self.objects.append(rendered)
        return rendered["metadata"]["name"], {**inputs, "metadata": rendered["metadata"]}

    def _without_secrets(self, value: Any, path: str) -> Any:
        if _is_secret(value):
            self.leaks.add(f"{path} is a secret, and would stand in clear")
            return None
        if isinstance(value, dict):
            # A mapping comes over the wire in any order.
            return {key: self._without_secrets(value[key], f"{path}.{key}") for key in sorted(value)}
        if isinstance(value, list):
            return [self._without_secrets(part, f"{path}[{at}]") for at, part in enumerate(value)]
        # The wire knows floats alone.
        return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_secret(value: Any) -> bool:
    """Whether it is wrapped as a secret on its way to the engine."""
    return isinstance(value, dict) and rpc._special_sig_key in value


def _digest(rendered: Object) -> str:
    return sha256(json.dumps(rendered, sort_keys=True).encode()).hexdigest()[:_HASH_DIGITS]


def _run(engine: mocks.Mocks, stack: str, program: Callable[[], None]) -> dict[str, Any]:
    """Run the program; its outputs, secret ones as references."""
    loops: list[asyncio.AbstractEventLoop] = []

    def ready() -> None:
        # Pulumi's mocks want an event loop in each thread that they run in.
        loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(loops[-1])

    async def main() -> dict[str, Any]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(initializer=ready))
        mocks.set_mocks(engine, project="slipway", stack=stack, preview=False)
        await run_pulumi_func(program)
        root = settings.get_root_resource()
        assert isinstance(root, Stack)
        found = {}
        for name, value in root.outputs.items():
            output = pulumi.Output.from_input(value)
            found[name] = reference(name) if await output.is_secret() else await output.future()
        return found

    try:
        return asyncio.run(main())
    finally:
        for loop in loops:
            loop.close()
