"""Rules between keys of a stack on Kubernetes: what must be there, what must not be there twice.

Each raises ValueError with the key, the problem and the mend, before anything is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from components.kubernetes.labels import dns_label
from stacks.kubernetes_config import KubernetesConfig
from stacks.variables import check_stored

if TYPE_CHECKING:
    from stacks.config import StackConfig

REDIS_PASSWORD = "REDIS_PASSWORD"  # noqa: S105 - a name
"""In a store: the password of a Redis whose REDIS_URL it keeps, apart, for KEDA."""

_PORTS = {"redis": 6379, "rediss": 6379, "http": 80, "https": 443}
_MODEL_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")


def check(stack: StackConfig) -> None:
    """Raises ValueError for the first rule that is broken."""
    platform = stack.kubernetes
    if platform is None:
        raise ValueError("kubernetes: is missing; give at least kubernetes.hostnames, the names that clients ask")
    for name in stack.releases:
        dns_label(f"worker-{name}", f"releases.{name}: with `worker-` before it")
    _image(stack)
    _model(stack, platform)
    _secrets(stack, platform)
    _collector(stack, platform)
    if platform.network.policies:
        _ways_out(stack, platform)


def _image(stack: StackConfig) -> None:
    if stack.image and stack.build:
        raise ValueError("build: the image comes from slipway:image already; take one of them out")
    without = [name for name, release in stack.releases.items() if release.image is None]
    if without and not stack.image and not stack.build:
        raise ValueError(
            f"image: nothing says which image {without[0]} runs; give slipway:image (name@sha256:…), or slipway:build"
        )


def _model(stack: StackConfig, platform: KubernetesConfig) -> None:
    if platform.model_server is not None:
        if stack.openai_base_url or stack.openai_api_key or "OPENAI_API_KEY" in platform.stored:
            raise ValueError(
                "kubernetes.modelServer: stands where OpenAI would; take openaiApiKey and openaiBaseUrl out"
            )
        return
    if not stack.has_a_model and not platform.stored.intersection(_MODEL_KEYS):
        raise ValueError(
            "openaiApiKey: there is no model; set openaiApiKey, openaiBaseUrl or anthropicApiKey, name a key in "
            "kubernetes.secretStore.secrets, or give kubernetes.modelServer"
        )


def _secrets(stack: StackConfig, platform: KubernetesConfig) -> None:
    for name in platform.stored - {REDIS_PASSWORD}:
        check_stored(name)
    twice = platform.stored & {
        *stack.secret_env,
        *(["REDIS_URL"] if stack.redis_url else ()),
        *(["QDRANT_API_KEY"] if stack.qdrant_api_key else ()),
        *(["OPENAI_API_KEY"] if stack.openai_api_key else ()),
        *(["ANTHROPIC_API_KEY"] if stack.anthropic_api_key else ()),
    }
    if twice:
        raise ValueError(
            f"kubernetes.secretStore.secrets: {', '.join(sorted(twice))} is set in the stack, too; take one of them out"
        )
    if ("REDIS_URL" in platform.stored) != (platform.external_redis is not None):
        raise ValueError(
            "kubernetes.externalRedis: says how KEDA reaches the Redis whose REDIS_URL is in kubernetes.secretStore; "
            "give both or neither"
        )
    if REDIS_PASSWORD in platform.stored and platform.external_redis is None:
        raise ValueError(f"kubernetes.secretStore.secrets: {REDIS_PASSWORD} is for kubernetes.externalRedis alone")
    if "QDRANT_API_KEY" in platform.stored and stack.qdrant_url is None:
        raise ValueError("qdrantUrl: a store has QDRANT_API_KEY, and nothing says whose; give qdrantUrl")


def _collector(stack: StackConfig, platform: KubernetesConfig) -> None:
    collector = platform.collector
    if collector.langsmith_project is not None and "LANGSMITH_API_KEY" not in stack.secret_env:
        raise ValueError(
            "kubernetes.collector.langsmithProject: needs a key; run `pulumi config set --secret --path "
            "slipway:secretEnv.LANGSMITH_API_KEY`"
        )
    if collector.otlp is not None and bool(collector.otlp.secret_name) != bool(collector.otlp.secret_headers):
        raise ValueError("kubernetes.collector.otlp: give both of secretName and secretHeaders, or neither")


def _ways_out(stack: StackConfig, platform: KubernetesConfig) -> None:
    """Whoever names a service elsewhere must let its port out, or every request would wait in vain."""
    urls = {
        "redisUrl": stack.redis_url.get_secret_value() if stack.redis_url else None,
        "kubernetes.externalRedis": f"redis://{platform.external_redis.address}" if platform.external_redis else None,
        "qdrantUrl": stack.qdrant_url,
        "openaiBaseUrl": stack.openai_base_url,
        "kubernetes.collector.otlp": platform.collector.otlp.endpoint if platform.collector.otlp else None,
        "kubernetes.backup.bucket": platform.backup.bucket.endpoint if platform.backup.bucket else None,
        "env.OTEL_EXPORTER_OTLP_ENDPOINT": stack.env.get("OTEL_EXPORTER_OTLP_ENDPOINT"),
    }
    ports = {port for egress in platform.network.egress for port in egress.ports}
    for key, url in urls.items():
        if url is None:
            continue
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 443)
        if port not in ports:
            raise ValueError(
                f"kubernetes.network.egress: no rule lets port {port} out, which {key} needs; add one with its "
                "namespace or cidr"
            )
