"""`slipway queue`: what waits and what runs."""

from __future__ import annotations

from dataclasses import asdict

import typer

from app.cli import render
from app.cli.session import JsonOption, Session, TenantOption, perform, tenant_of
from app.runs.administration.backlog import Backlog


def queue(tenant: TenantOption = None, json: JsonOption = False) -> None:
    """Show what waits and what runs, by release."""

    async def work(session: Session) -> Backlog:
        return await session.administration.backlog(tenant_of(tenant))

    found = perform(work)
    if json:
        render.as_json(asdict(found))
        return
    render.table(
        ["release", "due", "running", "pausing", "oldest due", "workers heard"],
        [
            [
                release.release,
                release.due,
                release.running,
                release.pausing,
                render.span(release.oldest_due_seconds) if release.due else "-",
                "never" if release.workers_seen_seconds is None else f"{render.span(release.workers_seen_seconds)} ago",
            ]
            for release in found.releases
        ],
        empty="",
    )
    typer.echo(f"\nbehind another run of their thread: {found.behind}")
    typer.echo(f"to begin in more than a minute: {found.later}")
    typer.echo(f"dead letters: {found.dead}")
    if not found.complete:
        typer.echo("there is too much to count it all: these numbers are the least", err=True)
