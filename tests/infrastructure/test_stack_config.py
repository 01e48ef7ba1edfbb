"""The stack's configuration: what is refused, with the key and the mend, and what is understood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.traffic import HeaderPin, Role
from stacks.config import ConfigError, StackConfig, parse

REPOSITORY = Path(__file__).resolve().parents[2]


def given(variables: dict[str, str] | None = None, secret: set[str] | None = None, **keys: Any) -> StackConfig:
    """The configuration of these keys, as Pulumi hands them over: text, and JSON for what is not text."""
    raw = {key: value if isinstance(value, str) else json.dumps(value) for key, value in keys.items()}
    return parse(raw, secret=secret or set(), environment=variables or {})


def refusal(**keys: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        given(**keys)
    return str(refused.value)


def test_a_stack_that_says_nothing_has_one_release_with_all_requests() -> None:
    stack = given()
    assert [(part.name, part.weight, part.role) for part in stack.traffic().releases] == [("stable", 100, Role.SERVING)]
    assert stack.workers_of("stable").min == 1
    assert not stack.has_a_model


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        pytest.param(
            {"relases": {}}, "slipway:relases: is no key of the configuration; did you mean releases?", id="unknown key"
        ),
        pytest.param(
            {"releases": {"stable": {"weigth": 100}}},
            "slipway:releases.stable.weigth: is no key of the configuration; did you mean weight?",
            id="unknown key of a release",
        ),
        pytest.param(
            {"releases": {"stable": {"weight": 100, "pin": {"name": "x"}}}},
            "slipway:releases.stable.pin.name: is no key of the configuration; the keys are header, value",
            id="unknown key of a pin",
        ),
        pytest.param(
            {"platform": "docker"},
            "slipway:platform: there is no such platform; this version has: local, kubernetes",
            id="platform not built yet",
        ),
        pytest.param(
            {"releases": {"stable": {"weight": 90}, "canary": {"weight": 5}}},
            "slipway:releases: the weights sum to 95 (stable 90, canary 5), not to 100; change them so that they do",
            id="weights below 100",
        ),
        pytest.param(
            {"releases": {"stable": {"weight": -1}}},
            "slipway:releases.stable.weight: input should be greater than or equal to 0",
            id="negative weight",
        ),
        pytest.param(
            {"releases": {"sta ble": {"weight": 100}}},
            "slipway:releases: 'sta ble' is no name of a release; it must match",
            id="name is no id",
        ),
        pytest.param({"releases": {}}, "slipway:releases: dictionary should have at least 1 item", id="no release"),
        pytest.param(
            {"releases": {"stable": {"weight": 100}, "a": {"mirrorPercent": 5}, "b": {"mirrorPercent": 5}}},
            "slipway:releases: a and b both have mirrorPercent; one release at a time can be the shadow: take one out",
            id="two shadows",
        ),
        pytest.param(
            {"releases": {"stable": {"weight": 90}, "a": {"weight": 10, "mirrorPercent": 5}}},
            "slipway:releases: a is shadow: it answers nobody; set its weight to 0 and take its pin out",
            id="shadow with a weight",
        ),
        pytest.param(
            {"releases": {"stable": {"weight": 100}, "a": {"state": "draining", "pin": {}}}},
            "slipway:releases: a is draining: it answers nobody; set its weight to 0 and take its pin out",
            id="draining with a pin",
        ),
        pytest.param(
            {"releases": {"a": {"weight": 50, "pin": {"value": "x"}}, "b": {"weight": 50, "pin": {"value": "x"}}}},
            "slipway:releases: two releases are pinned by the same header and value; give each its own value",
            id="one pin for two",
        ),
        pytest.param(
            {"releases": {"stable": {"weight": 100, "mirrorPercent": 101}}},
            "slipway:releases.stable.mirrorPercent: input should be less than or equal to 100",
            id="mirror above 100",
        ),
        pytest.param(
            {"workers": {"min": 3, "max": 2}},
            "slipway:workers: min 3 is above max 2; swap them, or give one number for both",
            id="min above max",
        ),
        pytest.param(
            {"workers": {"min": 1, "max": 2}},
            "slipway:releases.stable.workers: the platform local does not scale; give one number, 1 or more",
            id="a range where nothing scales",
        ),
        pytest.param({"workers": 0}, "slipway:releases.stable.workers: the platform local", id="no workers"),
        pytest.param(
            {"env": {"PROMT_VERSION": "2"}},
            "slipway:env: the service has no setting PROMT_VERSION; did you mean PROMPT_VERSION?",
            id="unknown variable",
        ),
        pytest.param(
            {"releases": {"stable": {"weight": 100, "env": {"WORKER_SLOTS": "many"}}}},
            "slipway:releases.stable.env: WORKER_SLOTS: input should be a valid integer",
            id="value the service would refuse",
        ),
        pytest.param(
            {"env": {"PROMPT_VERSION": 1.1}},
            "slipway:env: PROMPT_VERSION is a number with a point, which may have lost digits; put it in quotes",
            id="number that YAML may have cut",
        ),
        pytest.param(
            {"env": {"REDIS_URL": "redis://elsewhere"}},
            "slipway:env: REDIS_URL cannot be set here; use slipway:redisUrl",
            id="variable of the platform",
        ),
        pytest.param(
            {"env": {"LANGSMITH_API_KEY": "ls-hush"}},
            "slipway:env: LANGSMITH_API_KEY is a secret; run `pulumi config set --secret --path slipway:secretEnv.LANG",
            id="secret in the clear variables",
        ),
        pytest.param(
            {"openaiApiKey": "sk-hush"},
            "slipway:openaiApiKey: is a secret and stands in clear; enter it again with `pulumi config set --secret",
            id="key in clear",
        ),
        pytest.param(
            {"appendfsync": "never"}, "slipway:appendfsync: input should be 'everysec' or 'always'", id="appendfsync"
        ),
        pytest.param(
            {"publicAddress": "127.0.0.1:99999"}, "publicAddress: the port must be between 1 and 65535", id="port"
        ),
        pytest.param({"keepData": "perhaps"}, "slipway:keepData: input should be a valid boolean", id="boolean"),
        pytest.param({"qdrantUrl": "qdrant:6333"}, "slipway:qdrantUrl: ", id="url"),
    ],
)
def test_what_is_wrong_is_refused_with_its_key_and_the_mend(keys: dict[str, Any], said: str) -> None:
    """A mistake must fail the preview, where it costs nothing, and say how to go on."""
    text = refusal(**keys)
    assert said in text
    assert "hush" not in text


def test_every_mistake_is_told_at_once() -> None:
    """Nobody wants to mend one per run."""
    text = refusal(nonsense=1, appendfsync="never", workers=-1)
    keys = {line.split(": ")[0].strip() for line in text.splitlines()[1:]}
    assert keys == {"slipway:workers.min", "slipway:appendfsync", "slipway:nonsense"}


def test_a_pin_without_words_takes_the_default_header_and_the_releases_name() -> None:
    stack = given(releases={"stable": {"weight": 100}, "canary": {"pin": {}}})
    assert stack.traffic().pinned[0].pin == HeaderPin("x-slipway-release", "canary")


def test_a_release_with_a_mirror_is_a_shadow() -> None:
    stack = given(releases={"stable": {"weight": 100}, "next": {"mirrorPercent": 2.5}})
    shadow = stack.traffic().shadow
    assert shadow is not None
    assert (shadow.name, shadow.mirror_percent) == ("next", 2.5)


def test_numbers_and_booleans_of_yaml_become_the_variables_text() -> None:
    stack = given(env={"WORKER_SLOTS": 8, "LANGSMITH_TRACING": True, "HTTP_ALLOWED_HOSTS": '["api.example.com"]'})
    assert stack.env == {"WORKER_SLOTS": "8", "LANGSMITH_TRACING": "true", "HTTP_ALLOWED_HOSTS": '["api.example.com"]'}


def test_text_of_the_configuration_is_read_as_what_its_key_is() -> None:
    """`pulumi config set` stores everything as text."""
    stack = given(workers="2", keepData="true", publicAddress="0.0.0.0:8080")
    assert stack.workers is not None
    assert (stack.workers.min, stack.keep_data, stack.host_port) == (2, True, ("0.0.0.0", 8080))


def test_a_release_can_have_its_own_number_of_workers() -> None:
    stack = given(workers=2, releases={"stable": {"weight": 100}, "canary": {"workers": 3}})
    assert (stack.workers_of("stable").min, stack.workers_of("canary").min) == (2, 3)


def test_a_key_comes_from_the_configuration_before_the_environment() -> None:
    """And one from the environment needs no encryption: it is not in the file."""
    variables = {"OPENAI_API_KEY": "from-environment", "ANTHROPIC_API_KEY": "other"}
    stack = given(variables, {"openaiApiKey"}, openaiApiKey="from-config")
    assert stack.openai_api_key is not None
    assert stack.openai_api_key.get_secret_value() == "from-config"
    assert stack.anthropic_api_key is not None
    assert stack.has_a_model
    assert "from-config" not in repr(stack)


@pytest.mark.parametrize(("stack", "releases"), [("dev", 1), ("canary", 2), ("prod", 2)])
def test_the_committed_stacks_are_valid(stack: str, releases: int) -> None:
    """They are what people copy from; every key in them is one that there is."""
    config = yaml.safe_load((REPOSITORY / f"Pulumi.{stack}.yaml").read_text())["config"]
    keys = {key.removeprefix("slipway:"): value for key, value in config.items()}
    text: dict[str, Any] = {
        key: str(value).lower() if isinstance(value, bool) else value for key, value in keys.items()
    }
    parsed = given(**text)
    assert len(parsed.releases) == releases
