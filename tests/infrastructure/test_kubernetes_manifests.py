"""The manifests as text: what is committed, reviewed and applied without Pulumi."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stacks.config import REPOSITORY, ConfigError
from stacks.manifests import configuration, main, text
from stacks.render import MADE_UP, render

SECURE = "v1:c2VjcmV0:ZW5jcnlwdGVk"
STACK = f"""
encryptionsalt: v1:salt
config:
  aws:region: eu-central-1
  slipway:platform: kubernetes
  slipway:image: registry.example.com/slipway@sha256:{"a" * 64}
  slipway:openaiApiKey:
    secure: {SECURE}
  slipway:secretEnv:
    LANGSMITH_API_KEY:
      secure: {SECURE}
  slipway:kubernetes:
    hostnames: [agent.example.com]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with one stack, `live`, some of whose values are encrypted."""
    (tmp_path / "Pulumi.live.yaml").write_text(STACK)
    return tmp_path


def test_encrypted_values_need_no_passphrase_and_come_out_as_references(folder: Path) -> None:
    """Whoever reviews a change of manifests need not be able to decrypt the stack."""
    made = render(configuration("live", folder), "live")
    out = text(made, "live")
    assert SECURE not in out
    assert MADE_UP not in out
    assert "${SERVICE_STACK_OPENAI_API_KEY}" in out
    assert "SERVICE_STACK_LANGSMITH_API_KEY" in out.splitlines()[1]


def test_the_text_is_the_objects_in_their_order(folder: Path) -> None:
    made = render(configuration("live", folder), "live")
    assert list(yaml.safe_load_all(text(made, "live"))) == made.objects


def test_an_encrypted_redis_is_refused_because_its_address_must_be_told(folder: Path) -> None:
    with (folder / "Pulumi.live.yaml").open("a") as file:
        file.write(f"  slipway:redisUrl:\n    secure: {SECURE}\n")
    with pytest.raises(ConfigError, match=r"give kubernetes\.externalRedis"):
        configuration("live", folder)


def test_a_stack_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"Pulumi\.gone\.yaml is missing; there are live"):
        configuration("gone", folder)


def test_another_process_renders_the_same_text() -> None:
    """A diff must show what changed, not in which order Python happened to keep it."""
    command = [sys.executable, "-m", "stacks.manifests", "prod"]
    seeded = {**os.environ, "PYTHONHASHSEED": "7", "OPENAI_API_KEY": "of-whoever-renders"}
    found = subprocess.run(command, cwd=REPOSITORY, env=seeded, capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout == text(render(configuration("prod"), "prod"), "prod")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: "),
        (["dev"], "has no manifests; render a stack of the platform kubernetes"),
        (["gone"], "no stack gone"),
    ],
)
def test_what_cannot_be_rendered_ends_with_the_reason(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert not shown.out
