"""The platform `kubernetes`: the service in one namespace of a cluster, hardened, scaled by its queue.

The cluster brings Gateway API with a controller (Envoy Gateway unless configured otherwise), KEDA where workers scale,
and External Secrets where a store keeps the secrets. The same `releases:` as on the local platform: each is an api and
workers of its own; a shadow's lie under a prefix of their own, a draining one has workers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pulumi
import pulumi_kubernetes

from app.infra.ids import Release
from app.infra.keys import Keys
from components.kubernetes.agent import DRAIN_SECONDS, PORT, AgentArgs
from components.kubernetes.agent_service import AgentService, AgentServiceArgs
from components.kubernetes.agent_workers import AgentWorkers, AgentWorkersArgs
from components.kubernetes.image import built_image
from components.kubernetes.namespace import RestrictedNamespace
from components.kubernetes.network import NetworkPolicies, PeerArgs
from components.kubernetes.queue_scaler import QueueScaler, RedisAccessArgs
from components.kubernetes.secrets import (
    FirstKey,
    RemoteSecretArgs,
    SecretStoreArgs,
    ServiceSecrets,
    ServiceSecretsArgs,
    StoreKind,
)
from components.kubernetes.traffic_split import (
    BackendArgs,
    ServiceType,
    SharedGatewayArgs,
    TlsArgs,
    TrafficSplit,
    TrafficSplitArgs,
)
from components.traffic import ReleaseTraffic, Role, shadow_prefix
from stacks import kubernetes_data as data
from stacks.config import REPOSITORY, StackConfig
from stacks.kubernetes_config import KubernetesConfig
from stacks.kubernetes_data import API, WORKER, Parts, edge, placement_of, resources_of
from stacks.outputs import Platform

NAME = "slipway"
"""Of the Gateway, the route and the first objects that people look for."""


def build(stack: StackConfig) -> Platform:
    """Everything of the stack, in the order in which it comes up."""
    platform = stack.kubernetes
    assert platform is not None, "checked with the configuration"
    opts = pulumi.ResourceOptions(providers=[_cluster(stack, platform)])
    parts = Parts(stack, platform, _namespace(stack, platform, opts), opts)
    parts.env["ENVIRONMENT"] = stack.environment
    access = data.redis_of(parts)
    data.qdrant_of(parts)
    data.collector_of(parts)
    data.models_of(parts)
    secrets = _service_secrets(parts)
    if access is None:
        access = data.stored_access(platform, secrets)
    key = FirstKey("first-key", {"namespace": parts.namespace}, opts)
    images = _images(stack)
    data.backup_of(parts, next(iter(images.values())))
    backends = [
        backend
        for part in stack.traffic().releases
        if (backend := _release(parts, part, secrets, key.secret_name, access, images[part.name])) is not None
    ]
    split = TrafficSplit(NAME, _split(parts, backends), opts)
    if platform.network.policies:
        _policies(parts)
    # Nobody is served before the route is written, so the outputs wait for it.
    ready = pulumi.Output.all(split.route_name, key.secret_name)
    return Platform(service_url=ready.apply(lambda _: platform.service_url), api_key=key.key)


def _cluster(stack: StackConfig, platform: KubernetesConfig) -> pulumi_kubernetes.Provider:
    return pulumi_kubernetes.Provider(
        "cluster",
        kubeconfig=platform.kubeconfig,
        context=platform.context,
        # What outlived the last `pulumi destroy`, with the data in it, is taken over by the next `pulumi up`. Not by a
        # provider of its own for these objects: moving to it would replace them.
        upsert_existing_objects=stack.keep_data or None,
    )


def _namespace(stack: StackConfig, platform: KubernetesConfig, opts: pulumi.ResourceOptions) -> pulumi.Output[str]:
    made = RestrictedNamespace(
        NAME,
        {
            "namespace": platform.namespace,
            "create": platform.create_namespace,
            "deny_by_default": platform.network.policies,
            "retain": stack.keep_data,
        },
        opts,
    )
    return made.namespace


def _service_secrets(parts: Parts) -> ServiceSecrets:
    args: ServiceSecretsArgs = {"namespace": parts.namespace, "values": parts.files}
    store = parts.platform.secret_store
    if store is not None:
        kept: SecretStoreArgs = {
            "name": store.name,
            "kind": StoreKind(store.kind),
            "refresh_interval": store.refresh_interval,
            "secrets": {
                variable.lower(): cast(RemoteSecretArgs, remote.model_dump(exclude_none=True))
                for variable, remote in store.secrets.items()
            },
        }
        args["store"] = kept
    return ServiceSecrets("service", args, parts.opts)


def _images(stack: StackConfig) -> dict[str, pulumi.Input[str]]:
    """Release → the image that it runs."""
    shared: pulumi.Input[str] | None = stack.image
    if stack.build is not None:
        shared = built_image(
            "image",
            folder=REPOSITORY,
            repository=stack.build.registry,
            tag=pulumi.get_stack(),
            platforms=stack.build.platforms,
            cache=stack.build.cache,
            arguments=stack.build.args,
        )
    found = {name: release.image or shared for name, release in stack.releases.items()}
    return {name: image for name, image in found.items() if image is not None}


def _release(
    parts: Parts,
    part: ReleaseTraffic,
    secrets: ServiceSecrets,
    first_key: pulumi.Output[str],
    access: RedisAccessArgs,
    image: pulumi.Input[str],
) -> BackendArgs | None:
    """The release's pods; its place in the route, where it has an api."""
    release = parts.stack.releases[part.name]
    chosen = {**parts.stack.env, **release.env}
    drain = float(chosen.pop("DRAIN_SECONDS", DRAIN_SECONDS))
    prefix = shadow_prefix(part.name) if part.role is Role.SHADOW else ""
    common: AgentArgs = {
        "namespace": parts.namespace,
        "release": part.name,
        "image": image,
        "secrets": secrets.made,
        "env": {**parts.env, **chosen, **({"REDIS_KEY_PREFIX": prefix} if prefix else {})},
        "drain_seconds": drain,
        "placement": placement_of(parts.platform.placement),
    }
    _workers(parts, part, common, access, prefix)
    if part.role is Role.DRAINING:
        return None
    api = parts.platform.api
    service = AgentService(
        f"api-{part.name}",
        cast(
            AgentServiceArgs,
            {
                **common,
                "first_key_secret": first_key,
                "replicas": api.replicas,
                "max_replicas": api.max_replicas or api.replicas,
                "resources": resources_of(api.resources),
            },
        ),
        parts.opts,
    )
    return _backend(part, service)


def _backend(part: ReleaseTraffic, service: AgentService) -> BackendArgs:
    # Requests go to apis that are ready. One that gets none is not waited for: taking them from a release that is
    # broken must not wait for it.
    name = (
        pulumi.Output.all(service.service_name, service.deployment_name).apply(lambda both: str(both[0]))
        if part.weight
        else service.service_name
    )
    backend: BackendArgs = {"release": part.name, "service": name, "port": PORT, "weight": part.weight}
    if part.pin is not None:
        backend["pin_header"], backend["pin_value"] = part.pin.header, part.pin.value
    if part.mirror_percent:
        backend["mirror_percent"] = part.mirror_percent
    return backend


def _workers(parts: Parts, part: ReleaseTraffic, common: AgentArgs, access: RedisAccessArgs, prefix: str) -> None:
    count, pods = parts.stack.workers_of(part.name), parts.platform.workers
    args = cast(AgentWorkersArgs, {**common, "resources": resources_of(pods.resources)})
    if count.min == count.max:
        args["replicas"] = count.min
    workers = AgentWorkers(f"worker-{part.name}", args, parts.opts)
    if count.min == count.max:
        return
    QueueScaler(
        f"scaler-{part.name}",
        {
            "namespace": parts.namespace,
            "deployment": workers.deployment_name,
            "instance": part.name,
            "queue": Keys(prefix).queue(Release(part.name)),
            "redis": access,
            # A release on its way out needs nobody once its queue is empty.
            "min_replicas": 0 if part.role is Role.DRAINING else count.min,
            "max_replicas": count.max,
            "runs_per_worker": pods.runs_per_worker,
        },
        parts.opts,
    )


def _split(parts: Parts, backends: Sequence[BackendArgs]) -> TrafficSplitArgs:
    platform, gateway = parts.platform, parts.platform.gateway
    args: TrafficSplitArgs = {
        "namespace": parts.namespace,
        "backends": backends,
        "hostnames": platform.hostnames,
        "gateway_class": gateway.class_name,
    }
    if platform.tls is not None:
        args["tls"] = cast(TlsArgs, platform.tls.model_dump(exclude_none=True))
    if gateway.shared is not None:
        args["shared_gateway"] = cast(SharedGatewayArgs, gateway.shared.model_dump(exclude_none=True))
    if gateway.envoy_gateway:
        args["envoy_gateway"] = {
            "replicas": gateway.replicas,
            "service_type": ServiceType(gateway.service_type),
            "service_annotations": gateway.service_annotations,
        }
    return args


def _policies(parts: Parts) -> None:
    """The edges of the architecture, and no others."""
    network, gateway = parts.platform.network, parts.platform.gateway
    proxies: PeerArgs = {"namespace": gateway.namespace}
    if gateway.envoy_gateway:
        owner = gateway.shared.name if gateway.shared else NAME
        proxies["pod_labels"] = {"gateway.envoyproxy.io/owning-gateway-name": owner}
    for source in (API, WORKER):
        parts.reaches_out(source)
    edges = [edge(proxies, API, PORT), *parts.edges]
    NetworkPolicies("policies", {"namespace": parts.namespace, "edges": edges, "dns": network.dns.args()}, parts.opts)
