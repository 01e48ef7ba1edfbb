"""POST /api/stream (start and follow a run), GET /runs/{run_id}/stream (follow one, from any event on)."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sse_starlette import EventSourceResponse

from app.api.dependencies import After, CallerDep, IdempotencyKey, Parts, RunIdPath
from app.api.problems import problems
from app.api.sse import stream
from app.api.start import ChatRequest, start
from app.runs.standing import Standing

router = APIRouter(tags=["stream"])


@router.post("/api/stream", response_class=EventSourceResponse, responses=problems(400, 401, 404, 409, 413, 422, 503))
async def start_stream(
    asked: ChatRequest, api: Parts, caller: CallerDep, after: After, idempotency_key: IdempotencyKey = None
) -> EventSourceResponse:
    """Say something to the agent and follow the run: `metadata`, `attempt`, `updates`, `messages`, `custom`, `end`;
    `gap` in the place of events that are gone, `lost` when the run itself is.

    Cut off? Follow /runs/{run_id}/stream with `Last-Event-ID`; X-Run-Id and the `metadata` event name the run.
    Sending this request again starts another run unless it bears the same Idempotency-Key.
    """
    accepted = await start(api, caller, asked, idempotency_key)
    if accepted.thread_id is not None:
        return stream(api, accepted.run_id, accepted.thread_id, Standing())
    run = await api.ledger.get(accepted.run_id)
    return stream(api, run.run_id, run.thread_id, await api.hub.look(run.run_id, after))


@router.get(
    "/runs/{run_id}/stream",
    response_class=EventSourceResponse,
    responses={
        204: {"description": "The run has ended and `Last-Event-ID` is its last event: do not connect again."},
        **problems(400, 401, 404, 503),
    },
)
async def follow_run(run_id: RunIdPath, api: Parts, caller: CallerDep, after: After) -> Response:
    """A run's events right after `Last-Event-ID`, or all of them; ends with the run. On any api process."""
    run = await api.ledger.get(run_id, caller.tenant)
    standing = await api.hub.look(run_id, after)
    if standing.over and not standing.say:
        return Response(status_code=204)  # a browser's EventSource connects again after everything else
    return stream(api, run_id, run.thread_id, standing)
