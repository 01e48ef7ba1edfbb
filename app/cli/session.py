"""What every command does around its work: settings, a connection, errors as one line and an exit code."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import structlog
import typer

from app.infra.errors import ConfigurationError, RedisUnavailable, RunNotFound, SlipwayError, ThreadNotFound
from app.infra.ids import RunId, TenantId, ThreadId, is_id
from app.infra.keys import Keys
from app.infra.redis import open_redis
from app.infra.settings import Settings, settings
from app.runs.administration.desk import Administration
from app.runs.ledger import RunLedger

T = TypeVar("T")

REFUSED, MISUSED, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with."""

    settings: Settings
    redis: Any
    keys: Keys
    administration: Administration


def perform(work: Callable[[Session], Awaitable[T]]) -> T:
    """The result of `work`; on an error the process ends with its text on stderr and the code that it means."""
    _log_to_stderr()
    try:
        return asyncio.run(_perform(settings(), work))
    except ConfigurationError as error:
        raise fail(str(error), code=MISUSED) from error
    except RedisUnavailable as error:
        fix = 'check REDIS_URL; for a stack of `make up` use `make slipway ARGS="…"`, which knows it'
        raise fail(f"{error.text}; {fix}") from error
    except (RunNotFound, ThreadNotFound) as error:  # what they advise is meant for clients of the api
        fix = "it may have expired or been deleted; `slipway runs list` and `slipway threads list` name what is there"
        raise fail(f"{error.text}; {fix}") from error
    except SlipwayError as error:
        raise fail(str(error)) from error
    except KeyboardInterrupt as error:
        raise fail("interrupted; the same command goes on where this one stopped", code=INTERRUPTED) from error


async def _perform(known: Settings, work: Callable[[Session], Awaitable[T]]) -> T:
    redis, keys = open_redis(known.redis), Keys(known.redis.key_prefix)
    try:
        ledger = RunLedger(redis, keys, known.runs, known.release)
        return await work(Session(known, redis, keys, Administration(redis, keys, ledger)))
    finally:
        await redis.aclose()


def fail(text: str, *, code: int = REFUSED) -> typer.Exit:
    """Say what is wrong on stderr; gives what is to be raised."""
    typer.echo(f"error: {text}", err=True)
    return typer.Exit(code)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; without a terminal to ask on, `--yes` must say so beforehand."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise fail("nobody can be asked here, for stdin is no terminal; add --yes to do it without a question")
    typer.confirm(question, abort=True, err=True)


def _log_to_stderr() -> None:
    """stdout is the answer: a script reads it."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, force=True)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _checked(value: str | None) -> str | None:
    if value is not None and not is_id(value):
        raise typer.BadParameter("an id has 1 to 64 letters, digits, '_', '.' or '-'")
    return value


# Ids as arguments; Typer does not know our types, so commands turn the text into them.
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.", callback=_checked)]
ThreadArgument = Annotated[str, typer.Argument(metavar="THREAD", help="Id of a thread.", callback=_checked)]
CronArgument = Annotated[str, typer.Argument(metavar="CRON", help="Id of a cron.", callback=_checked)]
TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="Name of a tenant.", callback=_checked)]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", help="Only what belongs to this tenant; default: all.", callback=_checked)
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Most to list.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for scripts instead of a table.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def tenant_of(value: str | None) -> TenantId | None:
    return None if value is None else TenantId(value)


def run_of(value: str) -> RunId:
    return RunId(value)


def thread_of(value: str) -> ThreadId:
    return ThreadId(value)
