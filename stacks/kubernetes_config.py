"""What only the platform `kubernetes` needs to know: everything under `slipway:kubernetes`.

Each key has a default that is safe for production; what a cluster must have (Gateway API, and KEDA where workers
scale) is not installed here. No key of it is a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.kubernetes.network import DNS, PRIVATE, PeerArgs
from components.kubernetes.queue_scaler import RUNS_PER_WORKER
from stacks.model import Model

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Hostname = Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
Port = Annotated[int, Field(ge=1, le=65_535)]
ImageReference = Annotated[str, Field(pattern=r"^[^\s@]+@sha256:[0-9a-f]{64}$")]
"""An image by digest: what was tested is what runs, whatever happens to the tag."""
Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$")]


class Resources(Model):
    """What a container asks for and may use at most; what is unsaid has the component's default."""

    cpu: Quantity | None = None
    memory: Quantity | None = None
    cpu_limit: Quantity | None = None
    memory_limit: Quantity | None = None
    storage: Quantity | None = None
    storage_limit: Quantity | None = None


class Toleration(Model):
    """A taint that does not keep pods off a node."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Placement(Model):
    """Where pods may run."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: tuple[Toleration, ...] = ()
    priority_class: Name | None = None
    """PriorityClass: who goes first when the cluster is full."""
    service_account: Name | None = None
    """ServiceAccount, say for a cloud's workload identity; its token for the cluster's API is not mounted."""
    image_pull_secret: Name | None = None
    """Secret with the registry's credentials, made by somebody else."""
    runtime_class: Name | None = None
    """RuntimeClass, say one that sandboxes."""


class Tls(Model):
    """Where the certificate of the host names is."""

    secret_name: Name
    """Secret of type kubernetes.io/tls in the namespace."""
    cluster_issuer: Name | None = None
    """ClusterIssuer of cert-manager that fills it. Default: somebody else does."""


class SharedGateway(Model):
    """A Gateway that somebody else runs; it has the certificate."""

    name: Name
    namespace: Name
    section: Name | None = None
    """Its listener. Default: all that admit the route."""


class GatewayConfig(Model):
    """What takes the requests."""

    class_name: Name = "eg"
    """GatewayClass."""
    shared: SharedGateway | None = None
    """Default: a Gateway of the stack's own."""
    envoy_gateway: bool = True
    """Whether the class is Envoy Gateway's, which then gets its own policies: idle times, retries, limits."""
    replicas: int = Field(2, ge=1, le=100)
    """Proxies (Envoy Gateway)."""
    service_type: Literal["LoadBalancer", "NodePort", "ClusterIP"] = "LoadBalancer"
    """How the proxies are reached from outside (Envoy Gateway)."""
    service_annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of the proxies' Service, which clouds read (Envoy Gateway)."""
    namespace: Name = "envoy-gateway-system"
    """Where the proxies run: from there the policies let requests in."""


class Api(Model):
    """The api of each release."""

    replicas: int = Field(2, ge=1, le=1_000)
    max_replicas: int | None = Field(None, ge=1, le=1_000)
    """Above `replicas`, CPU load decides. Default: `replicas`."""
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"maxReplicas {self.max_replicas} is below replicas {self.replicas}; raise it, or leave it out"
            )
        return self


class WorkerPods(Model):
    """The workers of each release; how many there are says `slipway:workers`."""

    resources: Resources = Resources()
    runs_per_worker: int = Field(RUNS_PER_WORKER, ge=1, le=500)
    """Runs, queued or running, that share a worker before another is started; WORKER_SLOTS is what one takes."""


class RemoteSecret(Model):
    """Where in the store a value lies."""

    key: Annotated[str, Field(min_length=1)]
    property: str | None = None
    """Field of that secret. Default: all of it."""


class SecretStore(Model):
    """A store of External Secrets (Vault, AWS Secrets Manager, …)."""

    name: Name
    kind: Literal["ClusterSecretStore", "SecretStore"] = "ClusterSecretStore"
    refresh_interval: Annotated[str, Field(pattern=r"^([0-9]+(h|m|s))+$")] = "1h"
    secrets: dict[str, RemoteSecret] = Field(min_length=1)
    """Variable (OPENAI_API_KEY) → where its value lies."""


class RedisPods(Model):
    """The stack's own Redis, where `slipway:redisUrl` names none."""

    image: ImageReference | None = None
    maxmemory_mb: int = Field(1_024, ge=64)
    """MiB of data; the container gets twice that."""
    storage: Quantity = "8Gi"
    storage_class: Name | None = None
    """Default: the cluster's."""
    resources: Resources = Resources()


class ExternalRedis(Model):
    """How KEDA reaches a Redis whose REDIS_URL a store keeps; its password is the store's REDIS_PASSWORD."""

    address: Address
    username: str | None = None
    database: int = Field(0, ge=0)
    tls: bool = True


class QdrantPods(Model):
    """The stack's own Qdrant, where `slipway:qdrantUrl` names none."""

    enabled: bool = True
    """Without it, and without a URL, nothing is found by meaning."""
    image: ImageReference | None = None
    storage: Quantity = "10Gi"
    storage_class: Name | None = None
    """Default: the cluster's."""
    resources: Resources = Resources()


class OtlpExport(Model):
    """An OTLP server that the collector sends on to."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
    """Its base URL, without /v1/traces."""
    secret_name: Name | None = None
    """Secret, made by somebody else, with values of headers."""
    secret_headers: tuple[str, ...] = ()
    """Keys of that Secret: the headers' names."""


class CollectorPods(Model):
    """The stack's own collector, where OTEL_EXPORTER_OTLP_ENDPOINT names none."""

    enabled: bool = True
    otlp: OtlpExport | None = None
    """Where traces and metrics go. Default: metrics wait for Prometheus, traces are counted."""
    langsmith_project: str | None = None
    """LangSmith project that traces go to; LANGSMITH_API_KEY is in `slipway:secretEnv`."""
    slow_ms: int = Field(10_000, ge=1)
    """Traces that are kept whole: those that failed, and those that took so long."""
    percent: float = Field(10, ge=0, le=100)
    """And this share of the others."""
    image: ImageReference | None = None
    memory_mb: int = Field(512, ge=128)
    resources: Resources = Resources()


class Bucket(Model):
    """A bucket of an S3-compatible store."""

    name: Annotated[str, Field(min_length=3, max_length=63)]
    folder: str | None = None
    endpoint: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Default: AWS."""
    region: str | None = None
    secret_name: Name | None = None
    """Secret, made by somebody else, with AWS credentials under `credentials`. Default: the identity of the pods."""
    image: ImageReference | None = None
    """Image of rclone. Default: a version by its tag."""


class BackupConfig(Model):
    """Copies of the stack's own Redis and Qdrant."""

    enabled: bool = True
    schedule: str = "17 */6 * * *"
    """Cron expression, UTC."""
    keep: int = Field(28, ge=1, le=1_000)
    """Copies of each that stay."""
    bucket: Bucket | None = None
    """Default: a disk of the cluster's, which saves from mistakes, not from the loss of the storage."""
    storage: Quantity = "20Gi"
    """Size of that disk."""
    storage_class: Name | None = None


class ModelServerConfig(Model):
    """A model on the cluster's own GPUs (vLLM), for every role that names no other model."""

    model: Annotated[str, Field(min_length=1)]
    """As the hub names it: `Qwen/Qwen3-8B`."""
    served_name: str | None = None
    """Default: the model's."""
    gpus: int = Field(1, ge=1, le=16)
    replicas: int = Field(1, ge=1, le=100)
    max_model_len: int | None = Field(None, ge=256)
    """Longest context in tokens. Default: the model's."""
    options: dict[str, str] = Field(default_factory=dict)
    """Further options of `vllm serve`. No secrets."""
    hub_secret_name: Name | None = None
    """Secret, made by somebody else, with a token of the model hub under `token`."""
    image: ImageReference | None = None
    """Image of vLLM. Default: a version by its tag."""
    storage: Quantity = "100Gi"
    """Disk for the fetched model."""
    storage_class: Name | None = None
    resources: Resources = Resources()
    placement: Placement | None = None
    """Default: nodes with GPUs, tainted or not."""


class Peer(Model):
    """Who may be asked: pods of a `namespace`, or addresses of a `cidr`."""

    namespace: Name | None = None
    pod_labels: dict[str, str] = Field(default_factory=dict)
    """Which pods of it. Default: all."""
    cidr: Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")] | None = None
    excluded: tuple[str, ...] = ()
    """Parts of `cidr` that are not meant."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.namespace is None) == (self.cidr is None):
            raise ValueError("give namespace or cidr, and not both")
        return self

    def args(self) -> PeerArgs:
        """What `NetworkPolicies` takes."""
        if self.cidr is not None:
            return {"cidr": self.cidr, "excluded": list(self.excluded)}
        assert self.namespace is not None
        return {"namespace": self.namespace, "pod_labels": dict(self.pod_labels)}


class Egress(Peer):
    """Whom api and workers may ask outside of the stack: models, tools, data services that are not the stack's."""

    ports: tuple[Port, ...] = Field(min_length=1)


def _peer(namespace: str, pod_labels: Mapping[str, str]) -> Peer:
    return Peer.model_validate({"namespace": namespace, "podLabels": dict(pod_labels)})


_INTERNET = Egress(cidr="0.0.0.0/0", excluded=PRIVATE, ports=(443,))


class Network(Model):
    """Who may talk to whom."""

    policies: bool = True
    """Whether everything is denied that is no edge of the architecture."""
    egress: tuple[Egress, ...] = (_INTERNET,)
    """Default: HTTPS to the internet, and nothing private."""
    dns: Peer = _peer(DNS["namespace"], DNS["pod_labels"])
    """Where names are resolved; a node-local cache has a `cidr`."""
    scaler: Peer = _peer("keda", {"app": "keda-operator"})
    """KEDA, which counts the queues in the stack's own Redis."""
    metrics: Peer = Peer(namespace="monitoring")
    """Prometheus, which asks the collector for numbers."""


class Build(Model):
    """Where an image of this repository goes that `pulumi up` builds."""

    registry: Annotated[str, Field(pattern=r"^[^\s@:/]+(:[0-9]+)?(/[^\s@:/]+)+$")]
    """Repository in a registry, without a tag: `ghcr.io/acme/slipway`."""
    platforms: tuple[Literal["linux/amd64", "linux/arm64"], ...] = ()
    """Default: that of the builder."""
    cache: bool = False
    """Whether layers are kept in the registry, under the tag `buildcache`."""
    args: dict[str, str] = Field(default_factory=dict)
    """Arguments of the Dockerfile: PYTHON_IMAGE, VERSION, REVISION."""


class KubernetesConfig(Model):
    """Everything under `slipway:kubernetes`."""

    namespace: Name = "slipway"
    create_namespace: bool = True
    """False where whoever runs the cluster has made it; label it for the Pod Security Standard `restricted` then."""
    kubeconfig: str | None = None
    """Path of a kubeconfig. Default: KUBECONFIG, or ~/.kube/config."""
    context: str | None = None
    """Context in it. Name it: the current one changes with the person who runs `pulumi up`."""
    hostnames: tuple[Hostname, ...] = ()
    """Names that are served; the first is the service's URL. Default: any name."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+$")] | None = None
    """Where clients reach the gateway. Default: the first host name, by https with `tls`."""
    tls: Tls | None = None
    """With it, HTTPS is served and HTTP leads there."""
    gateway: GatewayConfig = GatewayConfig()
    api: Api = Api()
    workers: WorkerPods = WorkerPods()
    placement: Placement = Placement()
    """Where api and workers run."""
    data_placement: Placement = Placement()
    """Where Redis, Qdrant and the collector run."""
    secret_store: SecretStore | None = None
    """Default: secrets come from the stack's configuration."""
    redis: RedisPods = RedisPods()
    external_redis: ExternalRedis | None = None
    """Only with REDIS_URL in `secretStore`."""
    qdrant: QdrantPods = QdrantPods()
    collector: CollectorPods = CollectorPods()
    backup: BackupConfig = BackupConfig()
    model_server: ModelServerConfig | None = None
    """Default: models are elsewhere."""
    network: Network = Network()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.hostnames and self.url is None:
            raise ValueError(
                "hostnames: name the host that clients ask, or give url; nothing else tells where the service is"
            )
        if self.tls is not None and self.gateway.shared is not None:
            raise ValueError("tls: the shared gateway has its own certificate; take tls out")
        if self.tls is not None and self.tls.cluster_issuer and not self.hostnames:
            raise ValueError("tls.clusterIssuer: a certificate is made for names; give hostnames")
        return self

    @property
    def service_url(self) -> str:
        """Where clients reach the service."""
        if self.url is not None:
            return self.url
        secure = self.tls is not None or self.gateway.shared is not None
        return f"{'https' if secure else 'http'}://{self.hostnames[0]}"

    @property
    def stored(self) -> set[str]:
        """Variables whose values a store keeps."""
        return set(self.secret_store.secrets) if self.secret_store else set()
