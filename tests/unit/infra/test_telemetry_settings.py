"""Settings of libraries that read the environment alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.infra import telemetry
from app.infra.settings import load

NAMES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "LANGSMITH_TRACING",
    "LANGSMITH_API_KEY",
    "LANGSMITH_PROJECT",
    "LANGSMITH_ENDPOINT",
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them set, no exporter made."""
    for name in NAMES:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")


def configured_by(folder: Path, text: str) -> dict[str, str]:
    """What the libraries find after a start with `text` as the `.env` file."""
    (folder / ".env").write_text(text)
    telemetry.configure(load(folder / ".env"), process="worker")
    return {name: os.environ[name] for name in NAMES if os.environ[name]}


def test_what_stands_in_the_env_file_reaches_the_libraries(tmp_path: Path) -> None:
    """LangSmith's client and the exporters know nothing of `.env`; `true` is the only word for yes that they take."""
    text = "LANGSMITH_TRACING=1\nLANGSMITH_API_KEY=ls-1\nOTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318\n"
    assert configured_by(tmp_path, text) == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_API_KEY": "ls-1",
        "LANGSMITH_PROJECT": "slipway",
    }


def test_nothing_is_traced_unasked(tmp_path: Path) -> None:
    """A key alone sends no run anywhere."""
    assert configured_by(tmp_path, "LANGSMITH_API_KEY=ls-1\n") == {}
