"""Stacks on Kubernetes of different shapes, rendered: configurations that the tests hold every rule against."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from stacks.config import StackConfig, parse
from stacks.render import Rendered, render

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = f"registry.example.com/slipway@sha256:{'a' * 64}"
MODEL_KEY = "sk-from-the-configuration"
REDIS_PASSWORD = "of-the-redis-elsewhere"

RELEASES: dict[str, Any] = {
    "stable": {"weight": 100},
    "canary": {"weight": 0, "pin": {}, "workers": {"min": 0, "max": 8}, "image": f"other@sha256:{'b' * 64}"},
    "next": {"mirrorPercent": 2.5, "workers": 3, "env": {"PROMPT_VERSION": "2"}},
    "old": {"state": "draining"},
}


def stack(kubernetes: dict[str, Any] | None = None, **keys: Any) -> StackConfig:
    """A configuration with all kinds of releases; `kubernetes` and other keys change it."""
    given = {
        "platform": "kubernetes",
        "environment": "production",
        "image": IMAGE,
        "openaiApiKey": MODEL_KEY,
        "releases": RELEASES,
        **keys,
        "kubernetes": {"hostnames": ["agent.example.com"], **(kubernetes or {})},
    }
    known = {key: value for key, value in given.items() if value is not None}
    raw = {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}
    return parse(raw, secret=set(raw), environment={})


def committed(name: str) -> StackConfig:
    """The configuration of a stack of this repository."""
    config = yaml.safe_load((REPOSITORY / f"Pulumi.{name}.yaml").read_text())["config"]
    keys = {key.removeprefix("slipway:"): value for key, value in config.items()}
    raw = {key: value if isinstance(value, str) else json.dumps(value) for key, value in keys.items()}
    return parse(raw, secret=set(), environment={})


VARIANTS: dict[str, StackConfig] = {
    "all releases": stack(),
    "prod": committed("prod"),
    "everything elsewhere": stack(
        {
            "url": "http://127.0.0.1:8080",
            "createNamespace": False,
            "gateway": {"shared": {"name": "shared", "namespace": "gateways"}, "envoyGateway": False},
            "collector": {"enabled": False},
            "network": {"egress": [{"cidr": "10.0.0.0/8", "ports": [443, 6380, 6333]}]},
        },
        redisUrl=f"rediss://app:{REDIS_PASSWORD}@redis.example.com:6380/1",
        qdrantUrl="https://qdrant.example.com:6333",
        qdrantApiKey="of-the-qdrant-elsewhere",
    ),
    "everything of its own": stack(
        {
            "tls": {"secretName": "tls", "clusterIssuer": "issuer"},
            "api": {"replicas": 2, "maxReplicas": 5},
            "modelServer": {"model": "Qwen/Qwen3-8B"},
            "backup": {"bucket": {"name": "copies", "region": "eu-central-1"}},
            "collector": {"langsmithProject": "slipway"},
        },
        openaiApiKey=None,
        secretEnv={"LANGSMITH_API_KEY": "ls-hush"},
        keepData=True,
    ),
    "secrets in a store": stack(
        {
            "secretStore": {
                "name": "vault",
                "secrets": {
                    "OPENAI_API_KEY": {"key": "slipway", "property": "openai"},
                    "REDIS_URL": {"key": "slipway", "property": "redis_url"},
                    "REDIS_PASSWORD": {"key": "slipway", "property": "redis_password"},
                },
            },
            "externalRedis": {"address": "redis.example.com:443"},
        },
        openaiApiKey=None,
    ),
}


@cache
def rendered(variant: str) -> Rendered:
    return render(VARIANTS[variant], "test")


def objects(made: Rendered, kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in made.objects if one["kind"] == kind}


def pods(made: Rendered) -> dict[str, dict[str, Any]]:
    """Pod templates by the workload's kind and name."""
    found = {}
    for one in made.objects:
        spec = one.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template is not None:
            found[f"{one['kind']} {one['metadata']['name']}"] = template
    return found
