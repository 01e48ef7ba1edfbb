"""Structured logs: one JSON object a line on standard output, bound once to request, run, thread, tenant and release.

What people wrote and what models answered is never logged, nor is any exception's text: it may quote either.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from app.infra.settings import ServiceSettings

_QUIET = ("httpx", "httpcore", "openai", "anthropic", "uvicorn.access", "asyncio")
"""Libraries whose INFO lines hold URLs or bodies, or tell nothing."""


def configure(service: ServiceSettings) -> None:
    """Set up logging for the process. Standard-library loggers go the same way."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _asyncio_without_details,
        _error_without_its_text,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    development = service.environment == "development" and sys.stdout.isatty()
    renderer: Processor = structlog.dev.ConsoleRenderer() if development else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            *[step for step in shared if not isinstance(step, structlog.stdlib.ExtraAdder)],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(service.log_level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(service.log_level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    structlog.contextvars.bind_contextvars(release=service.release)


def lifecycle() -> logging.Logger:
    """For the lines that a process begins and ends with: logged whatever LOG_LEVEL says, for its starter waits for it.

    A logger of the standard library; fields go into `extra`.
    """
    found = logging.getLogger("slipway.lifecycle")
    found.setLevel(logging.INFO)
    return found


def get_logger(name: str) -> Any:
    """A logger whose lines name their module."""
    return structlog.get_logger(module=name)


def _asyncio_without_details(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Keep what asyncio says of a failed task or callback; the lines below it print the task with its error's text."""
    record = event.get("_record")
    if record is not None and record.name == "asyncio":
        event["event"] = str(event["event"]).partition("\n")[0]
    return event


def _error_without_its_text(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by the error's class and the places it came through; its text may quote a prompt or a key."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else None
    if error is not None:
        event["error"] = type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)[-6:]
        event["at"] = [f"{frame.filename.rsplit('/app/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames]
    return event
