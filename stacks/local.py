"""The platform `local`: the whole service on this machine, without root, Docker or a cluster.

Valkey, vector store, language model (each only where the configuration names none of its kind), an api and workers
per release, and Envoy before them; programs of one supervisor under `.slipway/<stack>/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pulumi

from app.infra.settings import ServiceSettings
from components.front_door import FrontDoor
from components.local.model_server import MODEL
from components.local.resources import ApiKey, Ports, Supervisor
from components.model_server import ModelServer
from components.release import Release
from components.traffic import ReleaseTraffic, Role, shadow_prefix
from components.valkey import Valkey
from components.vector_store import VectorStore
from stacks.config import REPOSITORY, StackConfig
from stacks.outputs import Platform

Env = dict[str, pulumi.Input[str]]


def build(stack: StackConfig) -> Platform:
    """Everything of the stack, in the order in which it comes up."""
    folder = REPOSITORY / ".slipway" / pulumi.get_stack()
    supervisor = Supervisor("supervisor", folder=str(folder), keep_data=stack.keep_data)
    # Through the supervisor, so that no program is written before it runs.
    there = supervisor.folder
    ports = Ports("ports", names=_fixed_ports(stack))
    env, secret_env = _service_env(stack, there, ports)
    releases = {part.name: _release(stack, part, there, env, secret_env) for part in stack.traffic().releases}
    host, port = stack.host_port
    front_door = FrontDoor(
        "front-door",
        {
            "folder": there,
            "host": host,
            "port": port or ports.of("front-door"),
            "plan": stack.traffic(),
            "addresses": {name: release.address for name, release in releases.items() if release.address is not None},
        },
    )
    prefixes = ["", *(shadow_prefix(part.name) for part in stack.traffic().shadows)]
    key = ApiKey("api-key", redis_url=secret_env["REDIS_URL"], prefixes=prefixes)
    # The key opens nothing before its record is written, so the outputs wait for both.
    ready = pulumi.Output.all(front_door.url, key.id)
    return Platform(service_url=ready.apply(lambda both: str(both[0])), api_key=key.key)


def build_digest(repository: Path = REPOSITORY) -> str:
    """Digest of the code that the processes run. Another digest means new processes, so `make up` ships an edit."""
    digest = sha256()
    files = [path for path in (repository / "app").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in sorted([*files, repository / "langgraph.json", repository / "uv.lock"]):
        if path.exists():
            digest.update(f"{path.relative_to(repository)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def machinery_digest(pattern: str) -> str:
    """Digest of a program of ours: the modules of `components/local/` whose names match `pattern`."""
    digest = sha256()
    for path in sorted((REPOSITORY / "components" / "local").glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _fixed_ports(stack: StackConfig) -> list[str]:
    """What needs an address that stays. An api does not: the front door follows it."""
    wanted = {
        "front-door": stack.host_port[1] is None,
        "valkey": stack.redis_url is None,
        "vector-store": stack.qdrant_url is None,
        "model-server": not stack.has_a_model,
    }
    return [name for name, needed in wanted.items() if needed]


def _service_env(stack: StackConfig, folder: pulumi.Output[str], ports: Ports) -> tuple[Env, Env]:
    """The variables of every release, plain and secret, and with them what they lead to."""
    env: Env = {"ENVIRONMENT": stack.environment}
    secret: Env = {name: value.get_secret_value() for name, value in stack.secret_env.items()}
    if stack.redis_url is None:
        valkey = Valkey("valkey", {"folder": folder, "port": ports.of("valkey"), "appendfsync": stack.appendfsync})
        secret["REDIS_URL"] = valkey.url
    else:
        secret["REDIS_URL"] = stack.redis_url.get_secret_value()
    if stack.qdrant_url is None:
        store = VectorStore(
            "vector-store",
            {"folder": folder, "port": ports.of("vector-store"), "build": machinery_digest("vector_*.py")},
        )
        env["QDRANT_URL"], secret["QDRANT_API_KEY"] = store.url, store.api_key
    else:
        env["QDRANT_URL"] = stack.qdrant_url
        if stack.qdrant_api_key is not None:
            secret["QDRANT_API_KEY"] = stack.qdrant_api_key.get_secret_value()
    if not stack.has_a_model:
        model = ModelServer(
            "model-server",
            {"folder": folder, "port": ports.of("model-server"), "build": machinery_digest("model_server.py")},
        )
        env |= {"OPENAI_BASE_URL": model.base_url, "ORCHESTRATOR_MODEL": MODEL, "REASONING_MODEL": MODEL}
        secret["OPENAI_API_KEY"] = "local"
    if stack.openai_base_url is not None:
        env["OPENAI_BASE_URL"] = stack.openai_base_url
    for name, key in (("OPENAI_API_KEY", stack.openai_api_key), ("ANTHROPIC_API_KEY", stack.anthropic_api_key)):
        if key is not None:
            secret[name] = key.get_secret_value()
    return env, secret


def _release(
    stack: StackConfig, part: ReleaseTraffic, folder: pulumi.Output[str], env: Env, secret_env: Env
) -> Release:
    chosen: Mapping[str, str] = {**stack.env, **stack.releases[part.name].env}
    apart: Env = {"REDIS_KEY_PREFIX": shadow_prefix(part.name)} if part.role is Role.SHADOW else {}
    drain = float(chosen.get("DRAIN_SECONDS", ServiceSettings.model_fields["drain_seconds"].default))
    return Release(
        f"release-{part.name}",
        {
            "folder": folder,
            "release": part.name,
            "env": {**env, **chosen, **apart},
            "secret_env": secret_env,
            "workers": stack.workers_of(part.name).min,
            "build": build_digest(),
            "drain_seconds": drain,
            "api": part.role is not Role.DRAINING,
        },
    )
