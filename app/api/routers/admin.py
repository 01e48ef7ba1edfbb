"""GET /admin/runs, /admin/runs/{run_id}; POST /admin/runs/{run_id}/cancel, …/replay;
GET and DELETE /admin/dead-letters, /admin/dead-letters/{run_id}; POST /admin/dead-letters/replay, …/{run_id}/replay;
GET /admin/threads; GET and DELETE /admin/threads/{thread_id}; GET /admin/threads/{thread_id}/export; GET /admin/queue.

For keys with the scope `admin` (or `*`), and each of them for its own tenant alone. Deleting a tenant is left to the
command line: it would take away the key that asks for it.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.admin_views import (
    BacklogView,
    Dropped,
    Replay,
    RunDetailView,
    RunList,
    ThreadExport,
    ThreadSummaryView,
)
from app.api.dependencies import AdminDep, AdministrationDep, RunIdPath, ThreadIdPath
from app.api.problems import problems, request_id
from app.api.views import RunView, ThreadView
from app.infra.ids import ID_PATTERN
from app.runs.administration.details import exported, thread_summary_json
from app.runs.administration.listing import RunFilter
from app.runs.model import Status

router = APIRouter(prefix="/admin", tags=["admin"])
_LISTED = problems(401, 403, 422, 503)
_ONE = problems(401, 403, 404, 422, 503)
_ACT = problems(401, 403, 404, 409, 422, 503)
_MOST_REPLAYED = 100

Limit = Annotated[int, Query(ge=1, le=1000, description="Most to list.")]
Events = Annotated[int, Query(ge=0, le=1000, description="Last events to show.")]
OfGraph = Annotated[str | None, Query(max_length=200, description="Only runs of this graph.")]
OfRelease = Annotated[str | None, Query(pattern=ID_PATTERN, description="Only runs of this release.")]


@router.get("/runs", responses=_LISTED)
async def list_runs(
    caller: AdminDep,
    administration: AdministrationDep,
    status: Annotated[Status | None, Query(description="Only runs with this status.")] = None,
    graph: OfGraph = None,
    release: OfRelease = None,
    limit: Limit = 20,
) -> RunList:
    """The tenant's runs, newest first."""
    return RunList.of(await administration.runs(caller.tenant, RunFilter(status, graph, release), limit=limit))


@router.get("/runs/{run_id}", responses=_ONE)
async def show_run(
    run_id: RunIdPath, caller: AdminDep, administration: AdministrationDep, events: Events = 10
) -> RunDetailView:
    """A run: where it stands, what its tools did, its last events."""
    return RunDetailView.of(await administration.run(run_id, caller.tenant, events=events))


@router.post("/runs/{run_id}/cancel", status_code=202, responses=_ONE)
async def cancel_run(run_id: RunIdPath, caller: AdminDep, administration: AdministrationDep) -> RunView:
    """Ask a run to stop, as `POST /runs/{run_id}/cancel` does."""
    return RunView.of(await administration.cancel(run_id, caller.tenant))


@router.post("/runs/{run_id}/replay", status_code=202, responses=_ACT)
async def replay_run(
    run_id: RunIdPath,
    caller: AdminDep,
    administration: AdministrationDep,
    again: Annotated[bool, Query(description="Start it anew from its input, whatever it ended as.")] = False,
) -> RunView:
    """Go on with a failed run's work from its last checkpoint, as a new run on the same thread."""
    replay = await administration.replay(run_id, caller.tenant, again=again, request_id=request_id())
    return RunView.of(replay)


@router.get("/dead-letters", responses=_LISTED)
async def list_dead_letters(
    caller: AdminDep,
    administration: AdministrationDep,
    graph: OfGraph = None,
    release: OfRelease = None,
    limit: Limit = 20,
) -> RunList:
    """Runs that failed for good, the last to fail first: why, the class of the last error, the checkpoint."""
    wanted = RunFilter(None, graph, release)
    return RunList.of(await administration.dead_letters(caller.tenant, wanted, limit=limit))


@router.delete("/dead-letters", responses=_LISTED)
async def drop_dead_letters(caller: AdminDep, administration: AdministrationDep) -> Dropped:
    """Empty the list of dead letters; the runs themselves can be read until they expire."""
    return Dropped(dropped=await administration.drop_all(caller.tenant))


@router.post("/dead-letters/replay", responses=_LISTED)
async def replay_dead_letters(
    caller: AdminDep,
    administration: AdministrationDep,
    limit: Annotated[int, Query(ge=1, le=_MOST_REPLAYED, description="Most to replay.")] = _MOST_REPLAYED,
) -> list[Replay]:
    """Replay the newest dead letters, in the order in which they failed; what cannot be replayed stays and says why."""
    return [
        Replay(replayed=one.run_id, run_id=one.by, error=one.refusal)
        async for one in administration.replay_dead_letters(caller.tenant, limit=limit, request_id=request_id())
    ]


@router.get("/dead-letters/{run_id}", responses=_ONE)
async def show_dead_letter(
    run_id: RunIdPath, caller: AdminDep, administration: AdministrationDep, events: Events = 10
) -> RunDetailView:
    """A dead letter: why it failed, what its tools did, its last events."""
    return RunDetailView.of(await administration.dead_letter(run_id, caller.tenant, events=events))


@router.post("/dead-letters/{run_id}/replay", status_code=202, responses=_ACT)
async def replay_dead_letter(run_id: RunIdPath, caller: AdminDep, administration: AdministrationDep) -> RunView:
    """Go on with its work from its last checkpoint, as a new run on the same thread. It is a dead letter no more."""
    replay = await administration.replay_dead_letter(run_id, caller.tenant, request_id=request_id())
    return RunView.of(replay)


@router.delete("/dead-letters/{run_id}", status_code=204, responses=_ONE)
async def drop_dead_letter(run_id: RunIdPath, caller: AdminDep, administration: AdministrationDep) -> None:
    """Take a run off the list of dead letters; it can be read until it expires."""
    await administration.drop(run_id, caller.tenant)


@router.get("/threads", responses=_LISTED)
async def list_threads(
    caller: AdminDep, administration: AdministrationDep, limit: Limit = 20
) -> list[ThreadSummaryView]:
    """The tenant's threads, the last to change first."""
    found = await administration.threads(caller.tenant, limit=limit)
    return [ThreadSummaryView.model_validate(thread_summary_json(thread)) for thread in found]


@router.get("/threads/{thread_id}", responses=_ONE)
async def show_thread(thread_id: ThreadIdPath, caller: AdminDep, administration: AdministrationDep) -> ThreadView:
    """Where a thread stands."""
    return ThreadView.of(await administration.thread(thread_id, caller.tenant))


@router.get("/threads/{thread_id}/export", responses=_ONE)
async def export_thread(thread_id: ThreadIdPath, caller: AdminDep, administration: AdministrationDep) -> ThreadExport:
    """A thread with its messages, and its runs with input and result."""
    thread = await administration.thread(thread_id, caller.tenant)
    runs = [run async for run in administration.runs_of_thread(thread_id)]
    return ThreadExport.model_validate(exported(thread, await administration.messages(thread_id), runs))


@router.delete("/threads/{thread_id}", status_code=204, responses=_ONE)
async def delete_thread(thread_id: ThreadIdPath, caller: AdminDep, administration: AdministrationDep) -> None:
    """Delete a thread, as `DELETE /threads/{thread_id}` does."""
    await administration.delete_thread(thread_id, caller.tenant)


@router.get("/queue", responses=_LISTED)
async def queue(caller: AdminDep, administration: AdministrationDep) -> BacklogView:
    """What of the tenant's waits and runs, by release, and when the release's workers were last heard."""
    return BacklogView.of(await administration.backlog(caller.tenant))
