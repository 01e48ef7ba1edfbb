"""The configuration of a stack on Kubernetes: what is refused, with the key and the mend, and what is understood."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stacks.config import ConfigError, StackConfig, parse
from tests.support.kubernetes_stacks import IMAGE

GIVEN: dict[str, Any] = {
    "platform": "kubernetes",
    "image": IMAGE,
    "openaiApiKey": "sk-hush",
    "kubernetes": {"hostnames": ["agent.example.com"]},
}
STORE = {"name": "vault", "secrets": {"OPENAI_API_KEY": {"key": "slipway"}}}


def given(variables: dict[str, str] | None = None, **keys: Any) -> StackConfig:
    """GIVEN with these changes; None takes a key out, keys of `kubernetes` come on top of its own."""
    merged = {**GIVEN, **keys}
    if isinstance(keys.get("kubernetes"), dict):
        merged["kubernetes"] = {**GIVEN["kubernetes"], **keys["kubernetes"]}
    raw = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in merged.items()
        if value is not None
    }
    return parse(raw, secret=set(raw), environment=variables or {})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        pytest.param(
            {"kubernetes": None},
            "slipway:kubernetes: is missing; give at least kubernetes.hostnames, the names that clients ask",
            id="no section",
        ),
        pytest.param(
            {"kubernetes": {"hostnames": []}},
            "slipway:kubernetes: hostnames: name the host that clients ask, or give url",
            id="no name and no URL",
        ),
        pytest.param(
            {"kubernetes": {"hostname": ["a"]}},
            "slipway:kubernetes.hostname: is no key of the configuration; did you mean hostnames?",
            id="unknown key",
        ),
        pytest.param(
            {"kubernetes": {"gateway": {"class": "eg"}}},
            "slipway:kubernetes.gateway.class: is no key of the configuration; did you mean className?",
            id="unknown key further in",
        ),
        pytest.param(
            {"kubernetes": {"network": {"egress": [{"cidr": "10.0.0.0/8", "port": 1}]}}},
            "slipway:kubernetes.network.egress.0.port: is no key of the configuration; did you mean ports?",
            id="unknown key in a list",
        ),
        pytest.param(
            {"kubernetes": {"secretStore": {"name": "v", "secrets": {"OPENAI_API_KEY": {"keys": "x"}}}}},
            "kubernetes.secretStore.secrets.OPENAI_API_KEY.keys: is no key of the configuration; did you mean key?",
            id="unknown key of a mapping",
        ),
        pytest.param({"image": None}, "slipway:image: nothing says which image stable runs; give", id="no image"),
        pytest.param({"image": "slipway:latest"}, "slipway:image: string should match pattern", id="image by tag"),
        pytest.param(
            {"build": {"registry": "ghcr.io/acme/slipway"}},
            "slipway:build: the image comes from slipway:image already; take one of them out",
            id="two images",
        ),
        pytest.param(
            {"image": None, "build": {"registry": "ghcr.io/acme/slipway:1"}},
            "slipway:build.registry: string should match pattern",
            id="registry with a tag",
        ),
        pytest.param(
            {"releases": {"Stable_1": {"weight": 100}}},
            "slipway:releases.Stable_1: with `worker-` before it: 'worker-Stable_1' is no name in Kubernetes",
            id="name of a release",
        ),
        pytest.param(
            {"openaiApiKey": None}, "slipway:openaiApiKey: there is no model; set openaiApiKey,", id="no model"
        ),
        pytest.param(
            {"kubernetes": {"secretStore": STORE}},
            "slipway:kubernetes.secretStore.secrets: OPENAI_API_KEY is set in the stack, too; take one of them out",
            id="secret twice",
        ),
        pytest.param(
            {"kubernetes": {"secretStore": {"name": "v", "secrets": {"OPENAI_APIKEY": {"key": "x"}}}}},
            "secretStore.secrets: the service has no setting OPENAI_APIKEY; did you mean OPENAI_API_KEY?",
            id="unknown secret",
        ),
        pytest.param(
            {"kubernetes": {"secretStore": {"name": "v", "secrets": {"PROMPT_VERSION": {"key": "x"}}}}},
            "secretStore.secrets: PROMPT_VERSION is no secret; put it under slipway:env",
            id="no secret in the store",
        ),
        pytest.param(
            {"kubernetes": {"secretStore": {"name": "v", "secrets": {"REDIS_URL": {"key": "x"}}}}},
            "kubernetes.externalRedis: says how KEDA reaches the Redis whose REDIS_URL is in",
            id="Redis that KEDA does not know",
        ),
        pytest.param(
            {"kubernetes": {"externalRedis": {"address": "redis:6379"}}},
            "kubernetes.externalRedis: says how KEDA reaches the Redis whose REDIS_URL is in",
            id="Redis that the service does not know",
        ),
        pytest.param(
            {"kubernetes": {"secretStore": {"name": "v", "secrets": {"QDRANT_API_KEY": {"key": "x"}}}}},
            "slipway:qdrantUrl: a store has QDRANT_API_KEY, and nothing says whose; give qdrantUrl",
            id="key of no Qdrant",
        ),
        pytest.param(
            {"redisUrl": "redis://:pw@redis.example.com:6380/0"},
            "kubernetes.network.egress: no rule lets port 6380 out, which redisUrl needs",
            id="no way out to Redis",
        ),
        pytest.param(
            {"openaiBaseUrl": "http://models.example.com/v1"},
            "kubernetes.network.egress: no rule lets port 80 out, which openaiBaseUrl needs",
            id="no way out to the models",
        ),
        pytest.param(
            {"kubernetes": {"modelServer": {"model": "Qwen/Qwen3-8B"}}},
            "kubernetes.modelServer: stands where OpenAI would; take openaiApiKey and openaiBaseUrl out",
            id="two models",
        ),
        pytest.param(
            {"kubernetes": {"tls": {"secretName": "tls"}, "gateway": {"shared": {"name": "g", "namespace": "g"}}}},
            "slipway:kubernetes: tls: the shared gateway has its own certificate; take tls out",
            id="two certificates",
        ),
        pytest.param(
            {"kubernetes": {"api": {"replicas": 3, "maxReplicas": 2}}},
            "slipway:kubernetes.api: maxReplicas 2 is below replicas 3; raise it, or leave it out",
            id="api out of order",
        ),
        pytest.param(
            {"kubernetes": {"network": {"egress": [{"ports": [443]}]}}},
            "slipway:kubernetes.network.egress.0: give namespace or cidr, and not both",
            id="way out to nobody",
        ),
        pytest.param(
            {"kubernetes": {"collector": {"langsmithProject": "slipway"}}},
            "kubernetes.collector.langsmithProject: needs a key; run `pulumi config set --secret --path",
            id="LangSmith without a key",
        ),
        pytest.param(
            {"kubernetes": {"redis": {"storage": "ten"}}},
            "slipway:kubernetes.redis.storage: string should match pattern",
            id="no quantity",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_its_key_and_the_mend(keys: dict[str, Any], said: str) -> None:
    """A mistake must fail the preview, where it costs nothing, and say how to go on."""
    with pytest.raises(ConfigError) as refused:
        given(**keys)
    assert said in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("key", ["image", "build", "releases.stable.image"])
def test_the_local_platform_runs_no_image(key: str) -> None:
    """An image that is ignored is a release that was never shipped."""
    keys: dict[str, Any] = {"image": IMAGE}
    if key == "build":
        keys = {"build": {"registry": "ghcr.io/acme/slipway"}}
    if key.startswith("releases"):
        keys = {"releases": {"stable": {"weight": 100, "image": IMAGE}}}
    raw = {name: value if isinstance(value, str) else json.dumps(value) for name, value in keys.items()}
    with pytest.raises(ConfigError, match=f"slipway:{key}: the platform local runs this checkout; take it out"):
        parse(raw, secret=set(), environment={})


def test_what_a_store_keeps_is_not_taken_from_the_environment() -> None:
    """Whoever runs `pulumi up` has keys of their own in the environment."""
    stack = given({"OPENAI_API_KEY": "mine"}, openaiApiKey=None, kubernetes={"secretStore": STORE})
    assert stack.openai_api_key is None


def test_a_model_server_of_its_own_is_not_replaced_by_the_environment() -> None:
    stack = given({"OPENAI_BASE_URL": "http://mine"}, openaiApiKey=None, kubernetes={"modelServer": {"model": "m"}})
    assert stack.openai_base_url is None


def test_keys_of_the_environment_serve_where_nothing_else_has_them() -> None:
    """As in continuous integration, whose secrets are variables."""
    stack = given({"OPENAI_API_KEY": "of-ci"}, openaiApiKey=None)
    assert stack.openai_api_key is not None


def test_the_url_is_the_first_name_and_https_with_a_certificate() -> None:
    def url(**kubernetes: Any) -> str:
        platform = given(kubernetes=kubernetes).kubernetes
        assert platform is not None
        return platform.service_url

    assert url() == "http://agent.example.com"
    assert url(tls={"secretName": "tls"}) == "https://agent.example.com"
    assert url(gateway={"shared": {"name": "g", "namespace": "g"}}) == "https://agent.example.com"
    assert url(url="http://127.0.0.1:30080", hostnames=[]) == "http://127.0.0.1:30080"


def test_without_policies_nothing_is_asked_about_ways_out() -> None:
    assert given(redisUrl="redis://redis:6380/0", kubernetes={"network": {"policies": False}}).redis_url is not None
