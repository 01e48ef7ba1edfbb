"""Logs: JSON, no text of an error, and the lines that somebody waits for."""

from __future__ import annotations

import asyncio
import gc
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


async def test_a_task_that_nobody_awaits_fails_without_its_errors_text(output: io.StringIO) -> None:
    """A graph's node may start one; asyncio prints it whole, with what its error quotes."""

    async def fail() -> None:
        raise ValueError("sk-secret")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    del task
    gc.collect()
    (line,) = output.getvalue().splitlines()
    assert "sk-secret" not in line
    assert json.loads(line)["event"] == "Task exception was never retrieved"
    assert json.loads(line)["error"] == "ValueError"


def test_an_errors_text_is_never_logged(output: io.StringIO) -> None:
    """It may quote a prompt, an answer or a key."""
    try:
        raise ValueError("sk-secret")
    except ValueError as error:
        our_logging.get_logger("x").error("failed", exc_info=error)
        logging.getLogger("some.library").exception("theirs")
    assert "sk-secret" not in output.getvalue()
    assert [json.loads(line)["error"] for line in output.getvalue().splitlines()] == ["ValueError", "ValueError"]
