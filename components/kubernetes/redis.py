"""One Redis (or Valkey) with a disk: queue, threads, checkpoints and events of a stack.

It logs every write (AOF), refuses writes rather than drop keys when memory ends, and lets in only named users with the
commands and keys that each needs (`redis_users`). One pod: it is restarted, never failed over; clients wait meanwhile.
The trap is a large log: it is read for minutes, in which Redis answers LOADING and must not be restarted.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import apps, core, meta

from components.kubernetes import redis_users
from components.kubernetes.labels import dns_label, labels, selector
from components.kubernetes.parts import (
    CLAIM_IS_FIXED,
    DiskArgs,
    claim_template,
    headless_service,
    memory_volume,
    metadata,
    one_may_go,
    retention,
)
from components.kubernetes.pod import (
    Container,
    PlacementArgs,
    Probes,
    ResourcesArgs,
    config_volume,
    container,
    exec_probe,
    http_probe,
    pod_template,
    secret_volume,
    tcp_probe,
)

IMAGE = "redis:8.8.0-alpine@sha256:9d317178eceac8454a2284a9e6df2466b93c745529947f0cd42a0fa9609d7005"
EXPORTER_IMAGE = "oliver006/redis_exporter:v1.86.0"
PORT, EXPORTER_PORT = 6379, 9121
CONFIG, PASSWORDS, RUN, TLS = "/etc/redis", "/etc/redis-passwords", "/run/redis", "/etc/redis-tls"
SCRIPTS = Path(__file__).parent / "scripts"
_PASSWORD_CHARS = 20
_SMALL: ResourcesArgs = {
    **{"cpu": "10m", "cpu_limit": "200m", "memory": "32Mi", "memory_limit": "64Mi"},
    **{"storage": "16Mi", "storage_limit": "64Mi"},
}
_START_SECONDS = 1_800
"""Longest reading of the log of writes; until then Redis answers LOADING and must not be restarted."""


class AppendFsync(StrEnum):
    """When an acknowledged write is on disk."""

    EVERYSEC = "everysec"
    """Within a second or two: what a crash may cost."""
    ALWAYS = "always"
    """Before it is acknowledged: nothing is lost, each write waits for the disk."""


class RedisTlsArgs(TypedDict):
    """TLS in place of plain connections."""

    secret_name: pulumi.Input[str]
    """Secret of type kubernetes.io/tls with `tls.crt`, `tls.key` and `ca.crt`, as cert-manager makes it."""
    client_ca_path: NotRequired[pulumi.Input[str]]
    """Where clients find `ca.crt` in their own file system; it goes into `url`. Without: their system's authorities."""


class RedisExporterArgs(TypedDict):
    """A second container that offers Redis's numbers to Prometheus on port 9121."""

    image: NotRequired[pulumi.Input[str]]
    """Image of oliver006/redis_exporter; default: one that this was written for."""
    resources: NotRequired[ResourcesArgs]
    """What it may use; default: 20m to 200m CPU, 32 to 64 MiB."""


class RedisArgs(TypedDict):
    """What a Redis needs to know: either `password` or `secret_name`."""

    namespace: pulumi.Input[str]
    """Namespace that everything goes into."""
    password: NotRequired[pulumi.Input[str]]
    """Secret from which each user's password is derived; at least 20 characters. Give it as a Pulumi secret."""
    secret_name: NotRequired[pulumi.Input[str]]
    """Existing Secret with a password per user under `app`, `scaler`, `backup`, and `exporter` where there is one."""
    image: NotRequired[pulumi.Input[str]]
    """Image with Redis 7.2 or Valkey 8 or later, by digest; its server and client on PATH."""
    maxmemory_mb: NotRequired[int]
    """Memory for data in MiB, default 1024; the container gets twice that, since a rewrite of the log copies pages."""
    appendfsync: NotRequired[AppendFsync]
    """When an acknowledged write is on disk; default `everysec`."""
    disk: NotRequired[DiskArgs]
    """Where the data lie; default 8Gi, kept. The log needs about three times `maxmemory_mb` while it is rewritten."""
    tls: NotRequired[RedisTlsArgs]
    """TLS in place of plain connections; default: plain, for a namespace with network policies."""
    exporter: NotRequired[RedisExporterArgs]
    """Numbers for Prometheus; default: none."""
    resources: NotRequired[ResourcesArgs]
    """CPU and storage on the node; memory follows `maxmemory_mb`. Default: 250m to 1 CPU."""
    placement: NotRequired[PlacementArgs]
    """Where the pod may run."""


class Redis(pulumi.ComponentResource):
    """One Redis.

    Outputs: `host` and `port`; `pod_host`, which names the pod while it is not ready, too; `url` (secret) for the user
    `app`, empty when the passwords come from a Secret of yours; `secret_name` with the passwords; `data_claim`, the
    disk; `pod_labels`, by which a NetworkPolicy finds the pod.
    """

    host: pulumi.Output[str]
    port: pulumi.Output[int]
    pod_host: pulumi.Output[str]
    url: pulumi.Output[str]
    secret_name: pulumi.Output[str]
    data_claim: pulumi.Output[str]
    pod_labels: pulumi.Output[Mapping[str, str]]

    def __init__(self, name: str, args: RedisArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:Redis", name, {}, opts)
        dns_label(f"{name}-nodes", "name of the Redis")
        _check(args)
        child = pulumi.ResourceOptions(parent=self)
        self.secret_name = self._passwords(name, args, child)
        self._service(name, args, child)
        self._stateful_set(name, args, child)
        one_may_go("redis", name, args["namespace"], child)
        namespace = pulumi.Output.from_input(args["namespace"])
        self.host = pulumi.Output.concat(f"{name}.", namespace)
        self.pod_host = pulumi.Output.concat(f"{name}-0.{name}-nodes.", namespace)
        self.port = pulumi.Output.from_input(PORT)
        self.url = _url(args, self.host)
        self.data_claim = pulumi.Output.from_input(f"data-{name}-0")
        self.pod_labels = pulumi.Output.from_input(selector("redis", name))
        self.register_outputs(
            {
                "host": self.host,
                "port": self.port,
                "pod_host": self.pod_host,
                "url": self.url,
                "secret_name": self.secret_name,
                "data_claim": self.data_claim,
                "pod_labels": self.pod_labels,
            }
        )

    def _passwords(self, name: str, args: RedisArgs, child: pulumi.ResourceOptions) -> pulumi.Output[str]:
        """Name of the Secret with them."""
        if "secret_name" in args:
            return pulumi.Output.from_input(args["secret_name"])
        users = [redis_users.APP, redis_users.SCALER, redis_users.BACKUP]
        if "exporter" in args:
            users.append(redis_users.EXPORTER)
        made = core.v1.Secret(
            f"{name}-passwords",
            metadata=metadata("redis", name, args["namespace"]),
            immutable=True,
            string_data={user: user_password(args["password"], user) for user in users},
            opts=child,
        )
        return made.metadata.apply(lambda known: str(known.name))

    def _service(self, name: str, args: RedisArgs, child: pulumi.ResourceOptions) -> None:
        """The one that clients use, and one that names the pod, ready or not."""
        redis = core.v1.ServicePortArgs(name="redis", port=PORT, target_port="redis")
        headless_service("redis", name, args["namespace"], [redis], child)
        metrics = core.v1.ServicePortArgs(name="metrics", port=EXPORTER_PORT, target_port="metrics")
        core.v1.Service(
            name,
            metadata=metadata("redis", name, args["namespace"], fixed=name),
            spec=core.v1.ServiceSpecArgs(
                selector=selector("redis", name), ports=[redis, metrics] if "exporter" in args else [redis]
            ),
            opts=child,
        )

    def _stateful_set(self, name: str, args: RedisArgs, child: pulumi.ResourceOptions) -> None:
        config = core.v1.ConfigMap(
            f"{name}-config",
            metadata=metadata("redis", name, args["namespace"]),
            immutable=True,
            data={
                "redis.conf": configuration(args),
                "users.acl": redis_users.users(exporter="exporter" in args),
                **{script: (SCRIPTS / script).read_text() for script in ("redis-users.sh", "redis-probe.sh")},
            },
            opts=child,
        )
        volumes = [
            config_volume("config", config.metadata["name"]),
            secret_volume("passwords", self.secret_name),
            # In memory: the hashes and the exporter's password touch no disk of the node.
            memory_volume("run", "1Mi"),
        ]
        if "tls" in args:
            volumes.append(secret_volume("tls", args["tls"]["secret_name"]))
        apps.v1.StatefulSet(
            name,
            metadata=metadata("redis", name, args["namespace"], fixed=name),
            spec=apps.v1.StatefulSetSpecArgs(
                replicas=1,
                service_name=f"{name}-nodes",
                selector=meta.v1.LabelSelectorArgs(match_labels=selector("redis", name)),
                persistent_volume_claim_retention_policy=retention(args.get("disk", {})),
                volume_claim_templates=[claim_template(args.get("disk", {}), "8Gi")],
                template=pod_template(
                    labels=labels("redis", name),
                    selector=selector("redis", name),
                    init_containers=[container(_users(args))],
                    containers=[
                        container(_server(args)),
                        *([container(_exporter(args))] if "exporter" in args else []),
                    ],
                    volumes=volumes,
                    placement=args.get("placement"),
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=list(CLAIM_IS_FIXED)),
        )


def configuration(args: RedisArgs) -> str:
    """redis.conf; no secret is in it."""
    if "tls" in args:
        listening = f"""port 0
tls-port {PORT}
tls-cert-file {TLS}/tls.crt
tls-key-file {TLS}/tls.key
tls-ca-cert-file {TLS}/ca.crt
tls-auth-clients no"""
    else:
        listening = f"port {PORT}"
    return f"""bind * -::*
{listening}
protected-mode no
aclfile {RUN}/users.acl
databases 1
dir /data
appendonly yes
appendfsync {AppendFsync(args.get("appendfsync", AppendFsync.EVERYSEC)).value}
save ""
maxmemory {_maxmemory(args)}mb
maxmemory-policy noeviction
tcp-keepalive 60
"""


def user_password(password: pulumi.Input[str], user: str) -> pulumi.Output[str]:
    """The password of a user of Redis, 64 hexadecimal digits, made from the one that the component was given."""

    def derive(known: str) -> str:
        if len(known) < _PASSWORD_CHARS:
            raise ValueError(
                f"password: shorter than {_PASSWORD_CHARS} characters; make one with `openssl rand -hex 32`"
            )
        return hmac.new(known.encode(), f"redis user {user}".encode(), hashlib.sha256).hexdigest()

    return pulumi.Output.secret(pulumi.Output.from_input(password).apply(derive))


def _url(args: RedisArgs, host: pulumi.Output[str]) -> pulumi.Output[str]:
    if "password" not in args:
        return pulumi.Output.from_input("")
    tls = args.get("tls")
    parts: list[pulumi.Input[str]] = [
        f"{'rediss' if tls else 'redis'}://{redis_users.APP}:",
        user_password(args["password"], redis_users.APP),
        "@",
        host,
        f":{PORT}/0",
    ]
    if tls and "client_ca_path" in tls:
        parts += ["?ssl_ca_certs=", tls["client_ca_path"]]
    return pulumi.Output.secret(pulumi.Output.concat(*parts))


def _check(args: RedisArgs) -> None:
    if ("password" in args) == ("secret_name" in args):
        raise ValueError("password, secret_name: give one of them, the other is left out")
    if not 64 <= _maxmemory(args) <= 1_048_576:
        raise ValueError(f"maxmemory_mb: {_maxmemory(args)} is not within 64 and 1048576 MiB")
    try:
        AppendFsync(args.get("appendfsync", AppendFsync.EVERYSEC))
    except ValueError:
        raise ValueError("appendfsync: neither everysec nor always; give one of these two") from None


def _maxmemory(args: RedisArgs) -> int:
    return int(args.get("maxmemory_mb", 1024))  # whole numbers come as floats from other Pulumi languages


def _users(args: RedisArgs) -> Container:
    """Runs before Redis: puts the hashes of the passwords into the file of users."""
    scheme = "rediss" if "tls" in args else "redis"
    return Container(
        name="users",
        image=args.get("image", IMAGE),
        command=["sh", f"{CONFIG}/redis-users.sh"],
        env={
            "TEMPLATE": f"{CONFIG}/users.acl",
            "PASSWORDS": PASSWORDS,
            "TARGET": RUN,
            "EXPORTER_ADDRESS": f"{scheme}://127.0.0.1:{PORT}",
        },
        mounts={"run": RUN},
        read_only_mounts={"config": CONFIG, "passwords": PASSWORDS},
        resources={},
        defaults=_SMALL,
        probes=None,
    )


def _server(args: RedisArgs) -> Container:
    most = f"{2 * _maxmemory(args) + 64}Mi"
    probe = ["sh", f"{CONFIG}/redis-probe.sh"]
    return Container(
        name="redis",
        image=args.get("image", IMAGE),
        command=["sh", "-c", f"exec $(command -v redis-server || command -v valkey-server) {CONFIG}/redis.conf"],
        env={"REDIS_PORT": str(PORT), **({"TLS_CA": f"{TLS}/ca.crt"} if "tls" in args else {})},
        ports={"redis": PORT},
        mounts={"data": "/data"},
        read_only_mounts={"config": CONFIG, "run": RUN, **({"tls": TLS} if "tls" in args else {})},
        resources=args.get("resources", {}),
        defaults={
            **{"cpu": "250m", "cpu_limit": "1", "memory": most, "memory_limit": most},
            **{"storage": "64Mi", "storage_limit": "256Mi"},
        },
        probes=Probes(
            startup=exec_probe([*probe, "ready"], period=5, failures=_START_SECONDS // 5),
            readiness=exec_probe([*probe, "ready"], period=5, failures=2),
            liveness=exec_probe([*probe, "alive"], period=10, failures=6),
        ),
    )


def _exporter(args: RedisArgs) -> Container:
    scheme = "rediss" if "tls" in args else "redis"
    return Container(
        name="exporter",
        image=args["exporter"].get("image", EXPORTER_IMAGE),
        env={
            "REDIS_ADDR": f"{scheme}://127.0.0.1:{PORT}",
            "REDIS_USER": redis_users.EXPORTER,
            "REDIS_PASSWORD_FILE": f"{RUN}/exporter.json",
            "REDIS_EXPORTER_CONFIG_COMMAND": "-",  # the user may not read the configuration
            **({"REDIS_EXPORTER_TLS_CA_CERT_FILE": f"{TLS}/ca.crt"} if "tls" in args else {}),
        },
        ports={"metrics": EXPORTER_PORT},
        read_only_mounts={"run": RUN, **({"tls": TLS} if "tls" in args else {})},
        resources=args["exporter"].get("resources", {}),
        defaults={**_SMALL, "cpu": "20m"},
        probes=Probes(
            startup=http_probe("/health", EXPORTER_PORT, failures=12),
            readiness=http_probe("/health", EXPORTER_PORT),
            liveness=tcp_probe(EXPORTER_PORT, period=10, failures=6),
        ),
    )
