"""The registry of models: what is known, what is assumed, and what stops the start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.infra.errors import ConfigurationError
from app.infra.settings import ModelSettings
from app.models.registry import ModelRegistry, Provider, Role, read


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of whoever runs the tests must not decide."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ORCHESTRATOR_MODEL", "REASONING_MODEL"):
        monkeypatch.delenv(name, raising=False)


def settings(**values: Any) -> ModelSettings:
    return ModelSettings(_env_file=None, **values)


def test_each_role_has_its_model() -> None:
    """The classifier by embeddings is none, so it needs no key."""
    registry = ModelRegistry.load(settings())
    assert registry.role(Role.ORCHESTRATOR).name == "gpt-5-mini"
    assert registry.role(Role.REASONER).name == "gpt-5"
    assert [entry.name for entry in registry.in_use()] == ["gpt-5-mini", "gpt-5"]


def test_the_bundled_model_is_known_to_be_small() -> None:
    """All that a turn of it spares rests on these."""
    entry = ModelRegistry.load(settings()).get("smollm2-135m-instruct")
    assert (entry.plans, entry.small, entry.price) == (False, True, "free")


@pytest.mark.parametrize(
    ("name", "base_url", "provider"),
    [
        ("claude-something-new", None, Provider.ANTHROPIC),
        ("gpt-next", None, Provider.OPENAI),
        ("qwen3", "http://127.0.0.1:8001/v1", Provider.COMPATIBLE),
    ],
)
def test_an_unknown_model_works_with_caution(name: str, base_url: str | None, provider: Provider) -> None:
    """A new model must not need a release of ours."""
    entry = ModelRegistry.load(settings(openai_base_url=base_url)).get(name)
    assert entry.provider is provider
    assert entry.price == "listed"
    assert entry.structured != "json_schema"


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({}, "OPENAI_API_KEY"),
        ({"orchestrator_model": "claude-sonnet-4-5", "openai_api_key": "k"}, "ANTHROPIC_API_KEY"),
        ({"orchestrator_model": "smollm2-135m-instruct", "openai_api_key": "k"}, "OPENAI_BASE_URL"),
    ],
)
def test_a_missing_key_stops_the_start_by_its_name(values: dict[str, Any], variable: str) -> None:
    """Else the first user finds out."""
    chosen = settings(**values)
    with pytest.raises(ConfigurationError, match=variable):
        ModelRegistry.load(chosen).check(chosen)


@pytest.mark.parametrize(
    "values",
    [
        {"openai_api_key": "k"},
        {"openai_base_url": "http://127.0.0.1:8001/v1"},
        {"orchestrator_model": "claude-opus-4-5", "reasoning_model": "claude-opus-4-5", "anthropic_api_key": "k"},
    ],
)
def test_what_suffices_starts(values: dict[str, Any]) -> None:
    """A server of one's own often wants no key; a provider that no role uses needs none."""
    chosen = settings(**values)
    ModelRegistry.load(chosen).check(chosen)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models:\n  m: {context_tokens: 12}", r"registry\.yaml: models\.m\.context_tokens: .*512"),
        ("models:\n  m: {colour: red}", r"models\.m\.colour: Extra inputs"),
        ("models:\n  m: [1]", r"models\.m: must be a mapping"),
        ("models: 3", r"no mapping `models:`"),
        ("models:\n  m: {a: b\n", r"registry\.yaml:\d+: not valid YAML"),
    ],
)
def test_a_wrong_registry_names_the_place(tmp_path: Path, text: str, said: str) -> None:
    """It is edited by hand."""
    path = tmp_path / "registry.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read(path)


def test_the_api_process_loads_no_client_library() -> None:
    """It reads the registry for readiness and prices; LangChain would cost it 60 MB."""
    code = (
        "import sys, app.models.reachability, app.models.prices;"
        "sys.exit(any(name.split('.')[0] in ('langchain_core', 'openai', 'anthropic') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
