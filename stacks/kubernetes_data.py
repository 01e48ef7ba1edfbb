"""What the releases of a stack on Kubernetes rest on: Redis, Qdrant, a collector, backups, a model server.

Each is the stack's own unless the configuration names one that is there already. Making one adds what the releases
need of it to `Parts`: settings, secrets, and the edges over which it is reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import unquote, urlsplit

import pulumi

from components.kubernetes import agent_service, agent_workers, model_server, otel_config, qdrant, redis, redis_users
from components.kubernetes.backup import Backup, BackupArgs, BucketArgs
from components.kubernetes.model_server import ModelServer, ModelServerArgs
from components.kubernetes.network import EdgeArgs, PeerArgs
from components.kubernetes.otel_collector import OtelCollector, OtelCollectorArgs
from components.kubernetes.parts import DiskArgs
from components.kubernetes.pod import PlacementArgs, ResourcesArgs
from components.kubernetes.qdrant import Qdrant, QdrantArgs
from components.kubernetes.queue_scaler import RedisAccessArgs
from components.kubernetes.redis import AppendFsync, Redis, RedisArgs
from components.kubernetes.secrets import ServiceSecrets
from components.local.resources import Secret
from stacks.config import StackConfig
from stacks.kubernetes_config import KubernetesConfig, Placement, Resources
from stacks.kubernetes_rules import REDIS_PASSWORD

Env = dict[str, pulumi.Input[str]]
API: PeerArgs = {"component": agent_service.COMPONENT}
WORKER: PeerArgs = {"component": agent_workers.COMPONENT}
_COLLECTOR: PeerArgs = {"component": "collector"}
_REDIS: PeerArgs = {"component": "redis"}
_QDRANT: PeerArgs = {"component": "qdrant"}
_MODEL: PeerArgs = {"component": "model-server"}
_BACKUP: PeerArgs = {"component": "backup"}


@dataclass(slots=True)
class Parts:
    """What the releases are given, gathered while the parts before them are made."""

    stack: StackConfig
    platform: KubernetesConfig
    namespace: pulumi.Output[str]
    opts: pulumi.ResourceOptions
    env: Env = field(default_factory=dict)
    """Settings of all releases."""
    files: Env = field(default_factory=dict)
    """Secret settings of all releases, by the file's name."""
    edges: list[EdgeArgs] = field(default_factory=list)
    """Who asks whom."""
    redis: Redis | None = None
    """The stack's own."""
    qdrant: Qdrant | None = None
    """The stack's own."""

    def reaches_out(self, source: PeerArgs) -> None:
        """Let `source` ask whom the configuration lets out."""
        for egress in self.platform.network.egress:
            self.edges.append({"source": source, "target": egress.args(), "ports": list(egress.ports)})


def redis_of(parts: Parts) -> RedisAccessArgs | None:
    """How KEDA reaches the Redis, which is the stack's own unless the configuration names one.

    None when a store keeps its URL: see `stored_access`.
    """
    stack, platform = parts.stack, parts.platform
    if "REDIS_URL" in platform.stored:
        return None
    if stack.redis_url is not None:
        url = stack.redis_url.get_secret_value()
        parts.files["redis_url"] = url
        return _access(parts, url)
    args: RedisArgs = {
        "namespace": parts.namespace,
        "password": pulumi.Output.secret(Secret("redis-password").value),
        "maxmemory_mb": platform.redis.maxmemory_mb,
        "appendfsync": AppendFsync(stack.appendfsync),
        "disk": _disk(platform.redis.storage, platform.redis.storage_class, keep=stack.keep_data),
        "resources": resources_of(platform.redis.resources),
        "placement": placement_of(platform.data_placement),
    }
    if platform.redis.image is not None:
        args["image"] = platform.redis.image
    parts.redis = Redis("redis", args, parts.opts)
    parts.files["redis_url"] = parts.redis.url
    askers = (API, WORKER, platform.network.scaler.args())
    parts.edges += [edge(source, _REDIS, redis.PORT) for source in askers]
    return {
        "address": pulumi.Output.concat(parts.redis.host, ":", str(redis.PORT)),
        "secret_name": parts.redis.secret_name,
        "password_key": redis_users.SCALER,
        "username": redis_users.SCALER,
    }


def _access(parts: Parts, url: str) -> RedisAccessArgs:
    """How KEDA reaches the Redis of a URL; its password goes into a Secret of its own."""
    found = urlsplit(url)
    access: RedisAccessArgs = {
        "address": f"{found.hostname}:{found.port or redis.PORT}",
        "database": int(found.path.strip("/") or 0),
        "tls": found.scheme == "rediss",
    }
    if found.username:
        access["username"] = unquote(found.username)
    if found.password:
        kept = ServiceSecrets(
            "redis-scaler", {"namespace": parts.namespace, "values": {"password": unquote(found.password)}}, parts.opts
        )
        access["secret_name"] = kept.names.apply(lambda names: names[0])
    return access


def stored_access(platform: KubernetesConfig, secrets: ServiceSecrets) -> RedisAccessArgs:
    """How KEDA reaches the Redis whose URL a store keeps."""
    external = platform.external_redis
    assert external is not None, "checked with the configuration"
    access: RedisAccessArgs = {"address": external.address, "database": external.database, "tls": external.tls}
    if external.username is not None:
        access["username"] = external.username
    if REDIS_PASSWORD in platform.stored:
        access["secret_name"] = secrets.names.apply(lambda names: names[-1])
        access["password_key"] = REDIS_PASSWORD.lower()
    return access


def qdrant_of(parts: Parts) -> None:
    """The stack's own Qdrant, or the one that the configuration names, or none."""
    stack, config = parts.stack, parts.platform.qdrant
    if stack.qdrant_url is not None:
        parts.env["QDRANT_URL"] = stack.qdrant_url
        if stack.qdrant_api_key is not None:
            parts.files["qdrant_api_key"] = stack.qdrant_api_key.get_secret_value()
        return
    if not config.enabled:
        return
    key: pulumi.Output[str] = pulumi.Output.secret(Secret("qdrant-key").value)
    args: QdrantArgs = {
        "namespace": parts.namespace,
        "api_key": key,
        "disk": _disk(config.storage, config.storage_class, keep=stack.keep_data),
        "resources": resources_of(config.resources),
        "placement": placement_of(parts.platform.data_placement),
    }
    if config.image is not None:
        args["image"] = config.image
    parts.qdrant = Qdrant("qdrant", args, parts.opts)
    parts.env["QDRANT_URL"] = parts.qdrant.url
    parts.files["qdrant_api_key"] = key
    parts.edges += [edge(source, _QDRANT, qdrant.PORT) for source in (API, WORKER)]


def collector_of(parts: Parts) -> None:
    """The stack's own collector, unless the settings name one or it is not wanted."""
    stack, config = parts.stack, parts.platform.collector
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in stack.env or not config.enabled:
        return
    args: OtelCollectorArgs = {
        "namespace": parts.namespace,
        "sampling": {"slow_ms": config.slow_ms, "percent": config.percent},
        "memory_mb": config.memory_mb,
        "resources": resources_of(config.resources),
        "placement": placement_of(parts.platform.data_placement),
    }
    if config.image is not None:
        args["image"] = config.image
    if config.otlp is not None:
        args["otlp"] = {"endpoint": config.otlp.endpoint}
        if config.otlp.secret_name is not None:
            args["otlp"]["secret_name"] = config.otlp.secret_name
            args["otlp"]["secret_headers"] = list(config.otlp.secret_headers)
    if config.langsmith_project is not None:
        key = stack.secret_env["LANGSMITH_API_KEY"].get_secret_value()
        args["langsmith"] = {"project": config.langsmith_project, "api_key": pulumi.Output.secret(key)}
    made = OtelCollector("otel-collector", args, parts.opts)
    parts.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = made.endpoint
    parts.edges += [edge(source, _COLLECTOR, otel_config.HTTP_PORT) for source in (API, WORKER)]
    ports = [otel_config.METRICS_PORT, otel_config.SELF_PORT]
    parts.edges.append({"source": parts.platform.network.metrics.args(), "target": _COLLECTOR, "ports": ports})
    if config.otlp is not None or config.langsmith_project is not None:
        parts.reaches_out(_COLLECTOR)


def models_of(parts: Parts) -> None:
    """The models' endpoint and keys; the stack's own model server where one is configured."""
    stack, config = parts.stack, parts.platform.model_server
    parts.files |= {name.lower(): value.get_secret_value() for name, value in stack.secret_env.items()}
    if stack.openai_base_url is not None:
        parts.env["OPENAI_BASE_URL"] = stack.openai_base_url
    for name, given in (("openai_api_key", stack.openai_api_key), ("anthropic_api_key", stack.anthropic_api_key)):
        if given is not None:
            parts.files[name] = given.get_secret_value()
    if config is None:
        return
    key: pulumi.Output[str] = pulumi.Output.secret(Secret("model-server-key").value)
    args: ModelServerArgs = {
        "namespace": parts.namespace,
        "model": config.model,
        "api_key": key,
        "gpus": config.gpus,
        "replicas": config.replicas,
        "options": config.options,
        "disk": _disk(config.storage, config.storage_class, keep=stack.keep_data),
        "resources": resources_of(config.resources),
    }
    if config.served_name is not None:
        args["served_name"] = config.served_name
    if config.max_model_len is not None:
        args["max_model_len"] = config.max_model_len
    if config.hub_secret_name is not None:
        args["hub_secret_name"] = config.hub_secret_name
    if config.image is not None:
        args["image"] = config.image
    if config.placement is not None:
        args["placement"] = placement_of(config.placement)
    made = ModelServer("model-server", args, parts.opts)
    parts.files["openai_api_key"] = key
    parts.env["OPENAI_BASE_URL"] = made.base_url
    parts.env |= {"ORCHESTRATOR_MODEL": made.model, "REASONING_MODEL": made.model}
    parts.edges += [edge(source, _MODEL, model_server.PORT) for source in (API, WORKER)]
    parts.reaches_out(_MODEL)


def backup_of(parts: Parts, image: pulumi.Input[str]) -> None:
    """Copies of what is the stack's own. `image` has the Python that copies Qdrant: the service's."""
    config = parts.platform.backup
    if not config.enabled or (parts.redis is None and parts.qdrant is None):
        return
    args: BackupArgs = {
        "namespace": parts.namespace,
        "schedule": config.schedule,
        "keep": config.keep,
        "placement": placement_of(parts.platform.data_placement),
    }
    if parts.redis is not None:
        own = parts.redis
        args["redis"] = {
            "host": own.host,
            "pod_host": own.pod_host,
            "secret_name": own.secret_name,
            "data_claim": own.data_claim,
        }
        if parts.platform.redis.image is not None:
            args["redis"]["image"] = parts.platform.redis.image
        parts.edges.append(edge(_BACKUP, _REDIS, redis.PORT))
    if parts.qdrant is not None:
        args["qdrant"] = {"url": parts.qdrant.url, "secret_name": parts.qdrant.secret_name, "image": image}
        parts.edges.append(edge(_BACKUP, _QDRANT, qdrant.PORT))
    if config.bucket is None:
        args["disk"] = _disk(config.storage, config.storage_class, keep=parts.stack.keep_data)
    else:
        args["bucket"] = cast(BucketArgs, config.bucket.model_dump(exclude_none=True))
        parts.reaches_out(_BACKUP)
    Backup("backup", args, parts.opts)


def edge(source: PeerArgs, target: PeerArgs, port: int) -> EdgeArgs:
    """One port from one to the other."""
    return {"source": source, "target": target, "ports": [port]}


def resources_of(known: Resources) -> ResourcesArgs:
    """What components take: only what is said."""
    return cast(ResourcesArgs, known.model_dump(exclude_none=True))


def placement_of(known: Placement) -> PlacementArgs:
    """What components take: only what is said."""
    said: Mapping[str, object] = known.model_dump(exclude_none=True)
    return cast(PlacementArgs, {name: value for name, value in said.items() if value})


def _disk(size: str, storage_class: str | None, *, keep: bool) -> DiskArgs:
    return {"size": size, "keep": keep, **({"storage_class": storage_class} if storage_class else {})}
