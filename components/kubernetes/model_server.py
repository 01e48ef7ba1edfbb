"""A model of one's own on GPUs: vLLM, which answers like OpenAI, for OPENAI_BASE_URL of the service.

It needs nodes with NVIDIA's device plugin, which offers `nvidia.com/gpu`. The model is fetched at the first start into
a disk; until it is loaded the pod is not ready. A GPU is not shared: an update ends the old pod first, so plan for the
minutes of loading, or run two and put them behind one name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

import pulumi
import yaml
from pulumi_kubernetes import apps, core, meta

from components.kubernetes.labels import dns_label, labels, selector
from components.kubernetes.parts import DiskArgs, claim, claim_volume, memory_volume, metadata, one_may_go
from components.kubernetes.pod import (
    Container,
    PlacementArgs,
    Probes,
    ResourcesArgs,
    container,
    http_probe,
    pod_template,
    secret_volume,
)
from components.kubernetes.secrets import immutable_secret

IMAGE = "vllm/vllm-openai:v0.11.0"
PORT = 8000
GPU = "nvidia.com/gpu"
TOKEN_FILE = "token"  # noqa: S105 - a name
"""Key of the model hub's token in its Secret."""
_CONFIG, _MODELS, _TOKEN = "/run/vllm", "/models", "/run/model-hub"
_START_SECONDS = 3_600
"""Longest fetching and loading of a model."""
_RESOURCES: ResourcesArgs = {
    **{"cpu": "2", "cpu_limit": "8", "memory": "16Gi", "memory_limit": "32Gi"},
    **{"storage": "1Gi", "storage_limit": "8Gi"},
}


class ModelServerArgs(TypedDict):
    """What a model server needs to know."""

    namespace: pulumi.Input[str]
    """Namespace that everything goes into."""
    model: str
    """Model, as the hub or a folder names it: `Qwen/Qwen3-8B`."""
    api_key: pulumi.Input[str]
    """Key that clients give: OPENAI_API_KEY of the service. Give it as a Pulumi secret."""
    served_name: NotRequired[str]
    """Name by which clients ask for it; default: the model's."""
    gpus: NotRequired[int]
    """GPUs of each pod, which share the model among them; default 1."""
    replicas: NotRequired[int]
    """Pods; default 1. With one disk for the models, all must be able to mount it (storage class)."""
    max_model_len: NotRequired[int]
    """Longest context in tokens; default: the model's."""
    options: NotRequired[Mapping[str, str]]
    """Further options of `vllm serve`, by their long names without dashes: `gpu-memory-utilization`. No secrets."""
    hub_secret_name: NotRequired[pulumi.Input[str]]
    """Existing Secret with a token of the model hub under `token`, for models that ask for one."""
    image: NotRequired[pulumi.Input[str]]
    """Image of vLLM, by digest."""
    disk: NotRequired[DiskArgs]
    """Where fetched models lie; default 100Gi, kept."""
    shared_memory: NotRequired[pulumi.Input[str]]
    """Memory through which GPUs' processes talk (/dev/shm); default 2Gi. It counts as the pod's."""
    resources: NotRequired[ResourcesArgs]
    """CPU, memory and storage; default: 2 to 8 CPUs, 16 to 32 GiB."""
    placement: NotRequired[PlacementArgs]
    """Where pods may run. Default: on nodes tainted for GPUs, too."""


class ModelServer(pulumi.ComponentResource):
    """A model server.

    Outputs: `base_url` for OPENAI_BASE_URL; `model`, the name to ask for; `pod_labels`, by which a NetworkPolicy finds
    the pods.
    """

    base_url: pulumi.Output[str]
    model: pulumi.Output[str]
    pod_labels: pulumi.Output[Mapping[str, str]]

    def __init__(self, name: str, args: ModelServerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:ModelServer", name, {}, opts)
        dns_label(name, "name of the model server")
        _check(args)
        child = pulumi.ResourceOptions(parent=self)
        core.v1.Service(
            name,
            metadata=metadata("model-server", name, args["namespace"], fixed=name),
            spec=core.v1.ServiceSpecArgs(
                selector=selector("model-server", name),
                ports=[core.v1.ServicePortArgs(name="http", port=PORT, target_port="http")],
            ),
            opts=child,
        )
        self._deployment(name, args, child)
        one_may_go("model-server", name, args["namespace"], child)
        self.base_url = pulumi.Output.concat(f"http://{name}.", args["namespace"], f":{PORT}/v1")
        self.model = pulumi.Output.from_input(args.get("served_name", args["model"]))
        self.pod_labels = pulumi.Output.from_input(selector("model-server", name))
        self.register_outputs({"base_url": self.base_url, "model": self.model, "pod_labels": self.pod_labels})

    def _deployment(self, name: str, args: ModelServerArgs, child: pulumi.ResourceOptions) -> None:
        config = pulumi.Output.from_input(args["api_key"]).apply(lambda key: configuration(args, key))
        secret = immutable_secret(f"{name}-config", args["namespace"], {"config.yaml": config}, name, self)
        models = claim(f"{name}-models", "model-server", args["namespace"], args.get("disk", {}), "100Gi", child)
        volumes = [
            secret_volume("config", secret),
            claim_volume("models", models.metadata["name"]),
            memory_volume("shm", "2Gi"),
        ]
        volumes[-1].empty_dir = core.v1.EmptyDirVolumeSourceArgs(
            medium="Memory", size_limit=args.get("shared_memory", "2Gi")
        )
        if "hub_secret_name" in args:
            volumes.append(secret_volume("hub", args["hub_secret_name"]))
        apps.v1.Deployment(
            name,
            metadata=metadata("model-server", name, args["namespace"], fixed=name),
            spec=apps.v1.DeploymentSpecArgs(
                replicas=_whole(args.get("replicas", 1)),
                revision_history_limit=3,
                # There is rarely a free GPU for one pod more.
                strategy=apps.v1.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.v1.RollingUpdateDeploymentArgs(max_surge=0, max_unavailable=1),
                ),
                progress_deadline_seconds=_START_SECONDS + 600,
                selector=meta.v1.LabelSelectorArgs(match_labels=selector("model-server", name)),
                template=pod_template(
                    labels=labels("model-server", name),
                    selector=selector("model-server", name),
                    containers=[_with_gpus(container(_server(args)), _whole(args.get("gpus", 1)))],
                    volumes=volumes,
                    placement=args.get("placement", _ON_GPU_NODES),
                ),
            ),
            opts=child,
        )


_ON_GPU_NODES: PlacementArgs = {
    "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
}


def configuration(args: ModelServerArgs, api_key: str) -> str:
    """vLLM's configuration file, with the API key: a file stands in no variable and no argument."""
    chosen: dict[str, object] = {
        "model": args["model"],
        "served-model-name": args.get("served_name", args["model"]),
        "host": "0.0.0.0",  # noqa: S104 - a pod is reached by its address; the policies say from where
        "port": PORT,
        "tensor-parallel-size": _whole(args.get("gpus", 1)),
        "download-dir": _MODELS,
        **args.get("options", {}),
        "api-key": api_key,
    }
    if "max_model_len" in args:
        chosen["max-model-len"] = _whole(args["max_model_len"])
    return yaml.safe_dump(chosen, sort_keys=True)


def _server(args: ModelServerArgs) -> Container:
    env: dict[str, pulumi.Input[str]] = {
        "HOME": "/tmp",  # noqa: S108 - a volume of the pod's own
        "USER": "vllm",  # the user has no entry in the image, and vLLM asks for its name
        "HF_HOME": _MODELS,
        "VLLM_CACHE_ROOT": f"{_MODELS}/.vllm",  # compiled kernels outlive the pod
        "TRITON_CACHE_DIR": f"{_MODELS}/.triton",
        "VLLM_NO_USAGE_STATS": "1",
    }
    reads: dict[str, str] = {"config": _CONFIG}
    if "hub_secret_name" in args:
        env["HF_TOKEN_PATH"], reads["hub"] = f"{_TOKEN}/{TOKEN_FILE}", _TOKEN
    return Container(
        name="vllm",
        image=args.get("image", IMAGE),
        command=["vllm", "serve", "--config", f"{_CONFIG}/config.yaml"],
        env=env,
        ports={"http": PORT},
        mounts={"models": _MODELS, "shm": "/dev/shm"},  # noqa: S108 - a volume of the pod's own
        read_only_mounts=reads,
        resources=args.get("resources", {}),
        defaults=_RESOURCES,
        probes=Probes(
            startup=http_probe("/health", "http", period=10, failures=_START_SECONDS // 10),
            readiness=http_probe("/health", "http", period=10, timeout=5),
            liveness=http_probe("/health", "http", period=20, failures=6, timeout=10),
        ),
        pre_stop_sleep=5,
    )


def _with_gpus(made: core.v1.ContainerArgs, gpus: int) -> core.v1.ContainerArgs:
    """GPUs are asked for by their limit; they cannot be overcommitted, so request and limit are one."""
    resources = made.resources
    assert isinstance(resources, core.v1.ResourceRequirementsArgs)
    for kind in ("requests", "limits"):
        setattr(resources, kind, {**getattr(resources, kind), GPU: str(gpus)})
    return made


def _whole(number: float) -> int:
    return int(number)  # whole numbers come as floats from other Pulumi languages


def _check(args: ModelServerArgs) -> None:
    for what, value in (("gpus", args.get("gpus", 1)), ("replicas", args.get("replicas", 1))):
        if value < 1:
            raise ValueError(f"{what}: {value} is below 1")
    owned = sorted({"model", "api-key", "host", "port", "download-dir", "config"} & set(args.get("options", {})))
    if owned:
        raise ValueError(f"options: {', '.join(owned)} cannot be set there; the component does")
