"""`slipway runs`: list, show, cancel, replay."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.session import (
    JsonOption,
    LimitOption,
    RunArgument,
    Session,
    TenantOption,
    perform,
    run_of,
    tenant_of,
)
from app.runs.administration.details import RunDetail, detail_json, iso, run_json, summary_json
from app.runs.administration.listing import Listing, RunFilter
from app.runs.model import Run, Status

app = typer.Typer(help="Runs: list, show, cancel, replay.", no_args_is_help=True)

AgainOption = Annotated[
    bool, typer.Option("--again", help="Start it anew from its input, whatever it ended as, with all its effects.")
]
EventsOption = Annotated[int, typer.Option("--events", min=0, max=1_000, help="Last events to show.")]
GraphOption = Annotated[str | None, typer.Option("--graph", help="Only runs of this graph.")]
ReleaseOption = Annotated[str | None, typer.Option("--release", help="Only runs of this release.")]


@app.command("list")
def list_runs(
    tenant: TenantOption = None,
    status: Annotated[Status | None, typer.Option("--status", help="Only runs with this status.")] = None,
    graph: GraphOption = None,
    release: ReleaseOption = None,
    limit: LimitOption = 20,
    json: JsonOption = False,
) -> None:
    """List runs, newest first."""

    async def work(session: Session) -> Listing:
        return await session.administration.runs(tenant_of(tenant), RunFilter(status, graph, release), limit=limit)

    found = perform(work)
    if json:
        render.as_json([summary_json(run) for run in found.runs])
    else:
        render.table(*render.run_rows(found.runs), empty="no runs")
    render.note_incomplete(found.complete)


@app.command()
def show(run: RunArgument, events: EventsOption = 10, json: JsonOption = False) -> None:
    """Show a run: where it stands, what its tools did, its last events. --json has its input and result too."""

    async def work(session: Session) -> RunDetail:
        return await session.administration.run(run_of(run), None, events=events)

    print_detail(perform(work), json=json)


@app.command()
def cancel(run: RunArgument, json: JsonOption = False) -> None:
    """Ask a run to stop: one that waits ends at once, a running one within a heartbeat."""

    async def work(session: Session) -> Run:
        return await session.administration.cancel(run_of(run), None)

    found = perform(work)
    if json:
        render.as_json(run_json(found))
    elif found.status.ended:
        typer.echo(f"run {found.run_id} has ended: {found.status}")
    else:
        typer.echo(f"run {found.run_id} is being cancelled")


@app.command()
def replay(run: RunArgument, again: AgainOption = False, json: JsonOption = False) -> None:
    """Go on with a failed run's work from its last checkpoint, as a new run on the same thread."""

    async def work(session: Session) -> Run:
        return await session.administration.replay(run_of(run), None, again=again)

    print_replay(run, perform(work), again=again, json=json)


def print_replay(run_id: str, replay: Run, *, again: bool = False, json: bool) -> None:
    """Say which run goes on with a run's work, or with `again` begins it anew."""
    if json:
        render.as_json({"replayed": run_id, **run_json(replay)})
    else:
        typer.echo(f"run {replay.run_id} " + (f"begins {run_id} anew" if again else f"goes on with {run_id}"))


def print_detail(detail: RunDetail, *, json: bool) -> None:
    """A run with all that is known of it."""
    if json:
        render.as_json(detail_json(detail))
        return
    run = detail.run
    error = (run.result or {}).get("error", {})
    render.fields(
        [
            ("run", run.run_id),
            ("thread", run.thread_id),
            ("tenant", run.tenant),
            ("user", run.user),
            ("graph", run.graph),
            ("release", run.release),
            ("status", run.status),
            *_place(detail),
            ("attempts", run.attempt),
            ("accepted", iso(run.accepted_ms)),
            ("ended", iso(run.ended_ms)),
            ("reason", error.get("kind")),
            ("last error", run.last_error),
            ("checkpoint", run.checkpoint_id),
            ("dead letter", "yes" if detail.dead else None),
            ("replays", " ".join(run.continues)),
            ("replayed by", detail.replayed_by),
            ("request", run.request_id),
        ]
    )
    if detail.effects:
        typer.echo("\neffects")
        render.table(
            ["tool", "state", "call", "run", "attempt", "at", "reason"],
            [
                [
                    effect.tool,
                    effect.state,
                    effect.call_id,
                    effect.run_id,
                    effect.attempt,
                    iso(effect.at_ms),
                    effect.reason,
                ]
                for effect in detail.effects
            ],
            empty="",
        )
    if detail.events:
        typer.echo("\nlast events")
        render.table(
            ["id", "event", "attempt", "bytes"],
            [[event.id, event.name, event.attempt, len(event.data)] for event in detail.events],
            empty="",
        )


def _place(detail: RunDetail) -> list[tuple[str, Any]]:
    place = detail.place
    if place is None:
        return []
    where = "in line behind its thread's run" if place.state == "waiting" else "in the queue"
    return [
        ("state", place.state),
        ("place", None if place.position is None else f"{place.position}. {where}"),
        ("due", iso(place.due_ms)),
        ("lease ends", iso(place.lease_ends_ms)),
    ]
