"""Logs: JSON, no text of an error, and the lines that somebody waits for."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.infra import logging as our_logging
from app.infra.settings import ServiceSettings


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """What a process with LOG_LEVEL=ERROR writes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    our_logging.configure(ServiceSettings(environment="production", log_level="ERROR"))
    written = io.StringIO()
    root.handlers[0].stream = written  # type: ignore[attr-defined]
    yield written
    root.handlers[:], root.level = handlers, level
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def test_lifecycle_lines_are_logged_whatever_the_level(output: io.StringIO) -> None:
    """The local platform takes a worker for started when it says so; a quiet worker would never count as up."""
    our_logging.get_logger("x").info("not said")
    our_logging.lifecycle().info("worker ready", extra={"slots": 5})
    (line,) = output.getvalue().splitlines()
    assert json.loads(line)["event"] == "worker ready"
    assert json.loads(line)["slots"] == 5


def test_an_errors_text_is_never_logged(output: io.StringIO) -> None:
    """It may quote a prompt, an answer or a key."""
    try:
        raise ValueError("sk-secret")
    except ValueError as error:
        our_logging.get_logger("x").error("failed", exc_info=error)
        logging.getLogger("some.library").exception("theirs")
    assert "sk-secret" not in output.getvalue()
    assert [json.loads(line)["error"] for line in output.getvalue().splitlines()] == ["ValueError", "ValueError"]
