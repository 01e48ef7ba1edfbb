"""The local machinery as Pulumi resources: thin shells over `supervisor`, `process`, `ports`, `front_door`, `api_key`.

`read` never forgets a resource: it records how things are (`status`), and `diff` asks how they are, so that
`pulumi refresh` shows a program that died and `pulumi up` alone repairs it, after a reboot too. Secrets keep their
values over all that.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, Resource

from app.infra.ids import is_id
from components.local import api_key, front_door, ports, process
from components.local.dynamic import ByName, CreateResult, DiffResult, Props, ReadResult, UpdateResult, changed, unknown
from components.local.supervisor import Supervisor as Supervision

_PROVIDER = "__provider"


def _inputs(props: Props) -> Props:
    return {key: value for key, value in props.items() if key != _PROVIDER}


class SupervisorProvider(ByName):
    def create(self, props: Props) -> CreateResult:
        supervision = Supervision(Path(props["folder"]))
        # Nothing of this stack is in the state, so one that runs here is left over from a `pulumi up` that was killed.
        supervision.end(keep_data=True)
        return CreateResult(props["folder"], {**_inputs(props), "pid": supervision.start()})

    def read(self, id_: str, props: Props) -> ReadResult:
        return ReadResult(id_, {**_inputs(props), "pid": Supervision(Path(props["folder"])).pid()})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        if changed(olds, news, ("folder",)):
            return DiffResult(changes=True, replaces=["folder"], delete_before_replace=True)
        running = Supervision(Path(olds["folder"])).pid() != 0
        return DiffResult(changes=not running or bool(changed(olds, news, ("keep_data",))))

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult({**_inputs(news), "pid": Supervision(Path(news["folder"])).start()})

    def delete(self, _id: str, props: Props) -> None:
        Supervision(Path(props["folder"])).end(keep_data=bool(props["keep_data"]))


class Supervisor(Resource, module="local", name="Supervisor"):
    """The stack's supervisord and its folder."""

    folder: pulumi.Output[str]
    pid: pulumi.Output[int]

    def __init__(self, name: str, *, folder: str, keep_data: bool, opts: pulumi.ResourceOptions | None = None) -> None:
        props = {"folder": folder, "keep_data": keep_data, "pid": None}
        super().__init__(SupervisorProvider(), name, props, opts)


class PortsProvider(ByName):
    def create(self, props: Props) -> CreateResult:
        return CreateResult("ports", {**_inputs(props), "ports": ports.choose(props["names"])})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        return DiffResult(changes=bool(changed(olds, news, ("names",))))

    def update(self, _id: str, olds: Props, news: Props) -> UpdateResult:
        held = {name: int(port) for name, port in olds["ports"].items()}
        return UpdateResult({**_inputs(news), "ports": ports.choose(news["names"], held)})


class Ports(Resource, module="local", name="Ports"):
    """Free ports by name, chosen once. A name that comes later gets one; the others keep theirs."""

    ports: pulumi.Output[dict[str, int]]

    def __init__(self, name: str, *, names: list[str], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(PortsProvider(), name, {"names": sorted(names), "ports": None}, opts)

    def of(self, name: str) -> pulumi.Output[int]:
        return self.ports.apply(lambda ports: int(ports[name]))


class SecretProvider(ByName):
    def create(self, props: Props) -> CreateResult:
        return CreateResult(secrets.token_hex(8), {**_inputs(props), "value": secrets.token_urlsafe(32)})

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        return DiffResult(changes=False)


class Secret(Resource, module="local", name="Secret"):
    """256 random bits as text, made once; encrypted in the state."""

    value: pulumi.Output[str]

    def __init__(self, name: str, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(SecretProvider(), name, {"value": None}, _secret(opts, "value"))


_SPEC = tuple(process.ProcessSpec.__annotations__)
_PATIENCE = ("grace_seconds", "start_seconds", "health")
"""What is said about a program rather than to it: no reason to replace it."""


class ProcessProvider(ByName):
    def check(self, _olds: Props, news: Props) -> CheckResult:
        failures = []
        if not unknown(news["name"]) and not is_id(news["name"]):
            failures.append(CheckFailure("name", f"{news['name']!r} is no name; use letters, digits, `_`, `.`, `-`"))
        if not unknown(news["command"]) and not Path(news["command"][0]).is_absolute():
            failures.append(
                CheckFailure("command", f"{news['command'][0]} is not absolute; give the program's full path")
            )
        return CheckResult(_inputs(news), failures)

    def create(self, props: Props) -> CreateResult:
        running = process.create(process.spec_of(props))
        return CreateResult(running["program"], self._outs(props, running))

    def read(self, id_: str, props: Props) -> ReadResult:
        return ReadResult(id_, self._outs(props, process.read(process.running_of(props), props["folder"])))

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        differing = changed(olds, news, _SPEC)
        if {"folder", "name", "update"} & set(differing):
            return DiffResult(changes=True, replaces=differing, delete_before_replace=True)
        if news["update"] == "beside" and set(differing) - set(_PATIENCE):
            return DiffResult(changes=True, replaces=differing, delete_before_replace=False)
        return DiffResult(changes=bool(differing) or not process.runs(process.running_of(olds), olds["folder"]))

    def update(self, _id: str, olds: Props, news: Props) -> UpdateResult:
        running = process.running_of(olds)
        only_patience = set(changed(olds, news, _SPEC)) <= set(_PATIENCE)
        if not (only_patience and process.runs(running, olds["folder"])):
            running = process.update(process.spec_of(news), running)
        return UpdateResult(self._outs(news, running))

    def delete(self, _id: str, props: Props) -> None:
        process.delete(process.spec_of(props), process.running_of(props))

    @staticmethod
    def _outs(props: Props, running: process.Running) -> Props:
        return {
            **_inputs(props),
            "program": running["program"],
            "pid": running["pid"],
            "assigned_port": running["port"],
            "status": running["status"],
        }


class Process(Resource, module="local", name="Process"):
    """One supervised program; exists once it is healthy. `spec` is a `process.ProcessSpec` of inputs."""

    folder: pulumi.Output[str]
    program: pulumi.Output[str]
    pid: pulumi.Output[int]
    assigned_port: pulumi.Output[int]
    status: pulumi.Output[str]

    def __init__(self, name: str, spec: Mapping[str, Any], *, opts: pulumi.ResourceOptions | None = None) -> None:
        unheard = set(spec) - set(_SPEC)
        if unheard:
            raise TypeError(f"a process has no {', '.join(sorted(unheard))}")
        props = {**spec, "program": None, "pid": None, "assigned_port": None, "status": None}
        if "secret_env" in spec:
            props["secret_env"] = pulumi.Output.secret(spec["secret_env"])
        super().__init__(ProcessProvider(), name, props, opts)


class RoutesProvider(ByName):
    def create(self, props: Props) -> CreateResult:
        return CreateResult("routes", {**_inputs(props), "version": self._apply(props)})

    def read(self, id_: str, props: Props) -> ReadResult:
        return ReadResult(id_, {**_inputs(props), "version": front_door.live_version(Path(props["admin"]))})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        if changed(olds, news, ("folder", "admin", "plan", "addresses")):
            return DiffResult(changes=True)
        live = front_door.live_version(Path(olds["admin"]))
        return DiffResult(changes=live != olds.get("version") or not live)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult({**_inputs(news), "version": self._apply(news)})

    def delete(self, _id: str, props: Props) -> None:
        front_door.close(Path(props["folder"]))

    @staticmethod
    def _apply(props: Props) -> str:
        return front_door.apply(Path(props["folder"]), Path(props["admin"]), props["plan"], props["addresses"])


class Routes(Resource, module="local", name="Routes"):
    """What Envoy serves: exists, and is up to date, once Envoy says so. Changes without a restart."""

    version: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        folder: pulumi.Input[str],
        admin: pulumi.Input[str],
        plan: list[dict[str, Any]],
        addresses: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"folder": folder, "admin": admin, "plan": plan, "addresses": dict(addresses), "version": None}
        super().__init__(RoutesProvider(), name, props, opts)


class ApiKeyProvider(ByName):
    def create(self, props: Props) -> CreateResult:
        from app.infra.auth import new_key

        key = new_key()
        api_key.register(props["redis_url"], key.text, props["prefixes"])
        return CreateResult(key.key_id, {**_inputs(props), "key": key.text, "registered": True})

    def read(self, id_: str, props: Props) -> ReadResult:
        return ReadResult(id_, {**_inputs(props), "registered": self._registered(props)})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        return DiffResult(changes=bool(changed(olds, news, ("redis_url", "prefixes"))) or not self._registered(olds))

    def update(self, _id: str, olds: Props, news: Props) -> UpdateResult:
        api_key.register(news["redis_url"], olds["key"], news["prefixes"])
        return UpdateResult({**_inputs(news), "key": olds["key"], "registered": True})

    def delete(self, _id: str, props: Props) -> None:
        api_key.revoke(props["redis_url"], props["key"], props["prefixes"])

    @staticmethod
    def _registered(props: Props) -> bool:
        return api_key.registered(props["redis_url"], props["key"], props["prefixes"])


class ApiKey(Resource, module="local", name="ApiKey"):
    """An API key of the service. The same for the stack's life; its record is put back when Redis lost it."""

    key: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        redis_url: pulumi.Input[str],
        prefixes: list[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"redis_url": pulumi.Output.secret(redis_url), "prefixes": prefixes, "key": None, "registered": None}
        super().__init__(ApiKeyProvider(), name, props, _secret(opts, "key"))


def _secret(opts: pulumi.ResourceOptions | None, output: str) -> pulumi.ResourceOptions:
    """`opts`, with one output that is made by the provider encrypted in the state."""
    merged = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(additional_secret_outputs=[output]))
    assert isinstance(merged, pulumi.ResourceOptions)
    return merged
