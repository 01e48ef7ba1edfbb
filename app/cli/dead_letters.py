"""`slipway dead-letter`: runs that failed for good: list, show, replay, drop."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import render
from app.cli.runs import EventsOption, GraphOption, ReleaseOption, print_detail, print_replay
from app.cli.session import (
    MISUSED,
    REFUSED,
    JsonOption,
    LimitOption,
    RunArgument,
    Session,
    TenantOption,
    YesOption,
    confirm,
    fail,
    perform,
    run_of,
    tenant_of,
)
from app.infra.ids import RunId
from app.runs.administration.desk import Replayed
from app.runs.administration.details import RunDetail, summary_json
from app.runs.administration.listing import MOST_LOOKED_AT, Listing, RunFilter
from app.runs.model import Run

app = typer.Typer(help="Runs that failed for good: list, show, replay, drop.", no_args_is_help=True)

AllOption = Annotated[bool, typer.Option("--all", help="All dead letters (of --tenant).")]
SomeRun = Annotated[str | None, typer.Argument(metavar="RUN", help="Id of a run; or --all.")]


@app.command("list")
def list_dead_letters(
    tenant: TenantOption = None,
    graph: GraphOption = None,
    release: ReleaseOption = None,
    limit: LimitOption = 20,
    json: JsonOption = False,
) -> None:
    """List dead letters, the last to fail first, with why they failed."""

    async def work(session: Session) -> Listing:
        return await session.administration.dead_letters(
            tenant_of(tenant), RunFilter(None, graph, release), limit=limit
        )

    found = perform(work)
    if json:
        render.as_json([summary_json(run) for run in found.runs])
    else:
        render.table(
            ["run", "thread", "tenant", "graph", "release", "attempts", "failed", "reason", "last error", "checkpoint"],
            [
                [
                    run.run_id,
                    run.thread_id,
                    run.tenant,
                    run.graph,
                    run.release,
                    run.attempt,
                    render.ago(run.ended_ms),
                    run.error or run.status,
                    run.last_error,
                    run.checkpoint_id,
                ]
                for run in found.runs
            ],
            empty="no dead letters",
        )
    render.note_incomplete(found.complete)


@app.command()
def show(run: RunArgument, events: EventsOption = 10, json: JsonOption = False) -> None:
    """Show a dead letter: why it failed, what its tools did, its last events."""

    async def work(session: Session) -> RunDetail:
        return await session.administration.dead_letter(run_of(run), None, events=events)

    print_detail(perform(work), json=json)


@app.command()
def replay(
    run: SomeRun = None,
    every: AllOption = False,
    tenant: TenantOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Go on with the work of dead letters from their last checkpoints, as new runs on the same threads."""
    if single := _one_or_all(run, every):

        async def work(session: Session) -> Run:
            return await session.administration.replay_dead_letter(single, None)

        print_replay(single, perform(work), json=json)
        return
    confirm("Replay all dead letters?", yes=yes)

    async def all_of_them(session: Session) -> list[Replayed]:
        letters = session.administration.replay_dead_letters(tenant_of(tenant), limit=MOST_LOOKED_AT)
        return [letter async for letter in letters]

    outcomes = perform(all_of_them)
    if json:
        render.as_json(
            [{"replayed": letter.run_id, "run_id": letter.by, "error": letter.refusal} for letter in outcomes]
        )
    for letter in outcomes:
        if letter.by is None:
            typer.echo(f"{letter.run_id}: {letter.refusal}", err=True)
        elif not json:
            typer.echo(f"run {letter.by} goes on with {letter.run_id}")
    refused = sum(letter.by is None for letter in outcomes)
    if not json:
        typer.echo(f"{len(outcomes) - refused} replayed, {refused} refused")
    if refused:
        raise typer.Exit(REFUSED)


@app.command()
def drop(
    run: SomeRun = None,
    every: AllOption = False,
    tenant: TenantOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Take dead letters off the list; the runs themselves can be read until they expire."""
    one = _one_or_all(run, every)
    confirm(f"Drop {one or 'all dead letters'}?", yes=yes)

    async def work(session: Session) -> int:
        if one is None:
            return await session.administration.drop_all(tenant_of(tenant))
        await session.administration.drop(one, None)
        return 1

    dropped = perform(work)
    if json:
        render.as_json({"dropped": dropped})
    else:
        typer.echo(f"dropped {dropped}")


def _one_or_all(run: str | None, every: bool) -> RunId | None:
    if (run is None) is not every:
        raise fail("name one run, or say --all", code=MISUSED)
    return None if run is None else run_of(run)
