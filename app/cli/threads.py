"""`slipway threads`: list, show, export, delete."""

from __future__ import annotations

from typing import Any

import typer

from app.cli import render
from app.cli.session import (
    JsonOption,
    LimitOption,
    Session,
    TenantOption,
    ThreadArgument,
    YesOption,
    confirm,
    perform,
    tenant_of,
    thread_of,
)
from app.runs.administration.details import ThreadDetail, exported, iso, thread_json, thread_summary_json
from app.runs.administration.listing import Listing, ThreadSummary
from app.runs.administration.removal import Removed

app = typer.Typer(help="Threads: list, show, export, delete.", no_args_is_help=True)

_RUNS_SHOWN = 10


@app.command("list")
def list_threads(tenant: TenantOption = None, limit: LimitOption = 20, json: JsonOption = False) -> None:
    """List threads, the last to change first."""

    async def work(session: Session) -> list[ThreadSummary]:
        return await session.administration.threads(tenant_of(tenant), limit=limit)

    found = perform(work)
    if json:
        render.as_json([thread_summary_json(thread) for thread in found])
        return
    render.table(
        ["thread", "tenant", "release", "status", "created", "last change"],
        [
            [
                thread.thread_id,
                thread.tenant,
                thread.release,
                thread.status,
                render.ago(thread.created_ms),
                render.ago(thread.updated_ms),
            ]
            for thread in found
        ],
        empty="no threads",
    )


@app.command()
def show(thread: ThreadArgument, json: JsonOption = False) -> None:
    """Show a thread: its release, its unfinished run, what it waits for, its newest runs."""

    async def work(session: Session) -> tuple[ThreadDetail, Listing]:
        detail = await session.administration.thread(thread_of(thread), None)
        return detail, await session.administration.newest_of_thread(detail.summary, limit=_RUNS_SHOWN)

    detail, newest = perform(work)
    if json:
        render.as_json(thread_json(detail))
        return
    known = detail.summary
    render.fields(
        [
            ("thread", known.thread_id),
            ("tenant", known.tenant),
            ("release", known.release),
            ("status", known.status),
            ("created", iso(known.created_ms)),
            ("last change", iso(known.updated_ms)),
            ("unfinished run", known.active),
            ("behind it", detail.waiting or None),
            ("waits for an answer to", known.asked),
            ("runs", detail.runs),
        ]
    )
    typer.echo("")
    render.table(*render.run_rows(newest.runs), empty="its runs have expired")


@app.command()
def export(thread: ThreadArgument) -> None:
    """Print a thread as JSON: its messages, and its runs with input and result."""

    async def work(session: Session) -> dict[str, Any]:
        administration = session.administration
        detail = await administration.thread(thread_of(thread), None)
        runs = [run async for run in administration.runs_of_thread(detail.summary.thread_id)]
        return exported(detail, await administration.messages(detail.summary.thread_id), runs)

    render.as_json(perform(work))


@app.command()
def delete(thread: ThreadArgument, yes: YesOption = False, json: JsonOption = False) -> None:
    """Delete a thread with its messages, runs and crons. An unfinished run is stopped. It cannot be undone."""
    confirm(f"Delete thread {thread} with all its runs, for good?", yes=yes)
    progress = render.Progress()

    async def work(session: Session) -> Removed:
        try:
            return await session.administration.delete_thread(thread_of(thread), None, told=progress)
        finally:
            progress.end()

    removed = perform(work)
    if json:
        render.as_json({"threads": removed.threads, "runs": removed.runs, "crons": removed.crons})
    else:
        typer.echo(f"deleted thread {thread}; its runs: {removed.runs}, crons: {removed.crons}")
