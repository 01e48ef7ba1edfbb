"""`slipway crons`: list, show, pause, resume, delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import typer

from app.cli import render
from app.cli.session import (
    CronArgument,
    JsonOption,
    LimitOption,
    Session,
    TenantOption,
    YesOption,
    confirm,
    perform,
    tenant_of,
)
from app.runs.administration.details import iso
from app.runs.schedule.crons import Crons
from app.runs.schedule.model import Cron

app = typer.Typer(help="Crons of all tenants: list, show, pause, resume, delete.", no_args_is_help=True)

T = TypeVar("T")


@app.command("list")
def list_crons(tenant: TenantOption = None, limit: LimitOption = 100, json: JsonOption = False) -> None:
    """List crons, with when each comes due next and what went wrong last."""
    owner = tenant_of(tenant)

    async def work(crons: Crons) -> list[Cron]:
        return await (crons.of_everyone(limit=limit) if owner is None else crons.of_tenant(owner, limit=limit))

    found = _perform(work)
    if json:
        render.as_json([_json(cron) for cron in found])
        return
    render.table(
        ["cron", "tenant", "schedule", "timezone", "graph", "next", "last run", "error"],
        [
            [
                cron.cron_id,
                cron.tenant,
                cron.schedule,
                cron.timezone,
                cron.graph,
                iso(cron.next_ms) if cron.enabled else "paused",
                cron.last_run_id,
                cron.last_error,
            ]
            for cron in found
        ],
        empty="there are no crons",
    )


@app.command()
def show(cron: CronArgument, json: JsonOption = False) -> None:
    """Show a cron: its schedule, its message, its last and its next moment."""
    _print(_perform(lambda crons: crons.get(cron, None)), json=json)


@app.command()
def pause(cron: CronArgument, json: JsonOption = False) -> None:
    """Let a cron start nothing until it is resumed."""
    _print(_perform(lambda crons: crons.change(cron, None, enabled=False)), json=json)


@app.command()
def resume(cron: CronArgument, json: JsonOption = False) -> None:
    """Let a paused cron go on with its next moment to come; what it missed is not made up for."""
    _print(_perform(lambda crons: crons.change(cron, None, enabled=True)), json=json)


@app.command()
def delete(cron: CronArgument, yes: YesOption = False) -> None:
    """Delete a cron. Runs that it has started go on."""
    confirm(f"Delete cron {cron}?", yes=yes)
    _perform(lambda crons: crons.delete(cron, None))
    typer.echo(f"deleted cron {cron}")


def _perform(work: Callable[[Crons], Awaitable[T]]) -> T:
    async def with_crons(session: Session) -> T:
        # It starts no run from here, so it need not know the graphs.
        return await work(Crons(session.redis, session.keys, session.settings.runs, session.settings.release, ()))

    return perform(with_crons)


def _print(cron: Cron, *, json: bool) -> None:
    if json:
        render.as_json(_json(cron))
        return
    render.fields(
        [
            ("cron", cron.cron_id),
            ("tenant", cron.tenant),
            ("user", cron.user),
            ("schedule", f"{cron.schedule} ({cron.timezone})"),
            ("state", _state(cron)),
            ("next", iso(cron.next_ms)),
            ("ends", iso(cron.end_ms)),
            ("graph", cron.graph),
            ("release", cron.release),
            ("thread", cron.thread_id or "a new one each time"),
            ("when it is busy", cron.strategy if cron.thread_id else None),
            ("message", cron.message),
            ("created", iso(cron.created_ms)),
            ("last moment", iso(cron.last_ms)),
            ("last run", cron.last_run_id),
            ("last error", cron.last_error),
        ]
    )


def _state(cron: Cron) -> str:
    if not cron.enabled:
        return "paused"
    return "on" if cron.next_ms is not None else "ended"


def _json(cron: Cron) -> dict[str, Any]:
    return {
        "cron_id": cron.cron_id,
        "tenant": cron.tenant,
        "user": cron.user,
        "message": cron.message,
        "schedule": cron.schedule,
        "timezone": cron.timezone,
        "thread_id": cron.thread_id,
        "graph": cron.graph,
        "multitask_strategy": cron.strategy,
        "release": cron.release,
        "enabled": cron.enabled,
        "created_at": iso(cron.created_ms),
        "end_at": iso(cron.end_ms),
        "next_run_at": iso(cron.next_ms),
        "last_run_at": iso(cron.last_ms),
        "last_run_id": cron.last_run_id,
        "last_error": cron.last_error or None,
    }
