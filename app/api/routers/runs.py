"""GET /runs/{run_id}, POST /runs/{run_id}/cancel."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.dependencies import CallerDep, Parts, RunIdPath
from app.api.problems import problems
from app.api.views import RunView

router = APIRouter(prefix="/runs", tags=["runs"])


@router.get("/{run_id}", responses=problems(401, 404, 422, 503))
async def get_run(run_id: RunIdPath, api: Parts, caller: CallerDep) -> RunView:
    """Where a run stands, and its result once it has ended."""
    return RunView.of(await api.ledger.get(run_id, caller.tenant))


@router.post("/{run_id}/cancel", status_code=202, responses=problems(401, 404, 422, 503))
async def cancel_run(run_id: RunIdPath, api: Parts, caller: CallerDep) -> RunView:
    """Ask a run to stop. One that waits ends at once, a running one within a heartbeat; `end` tells on its stream.

    A tool call already on its way is not taken back. Cancelling a run that has ended changes nothing, but takes back
    the question of one that waits for a person.
    """
    return RunView.of(await api.ledger.cancel(run_id, caller.tenant))
