"""GET /threads/{thread_id}, GET /threads/{thread_id}/history, DELETE /threads/{thread_id}."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.dependencies import AdministrationDep, CallerDep, Parts, ThreadIdPath
from app.api.problems import problems
from app.api.views import ThreadView
from app.runs.history import history

router = APIRouter(prefix="/threads", tags=["threads"])


class History(BaseModel):
    """A conversation so far, oldest message first."""

    thread_id: str
    release: str = Field(description="The release that the thread stays on.")
    active_run_id: str | None = Field(description="Its unfinished run, if any; its messages are not here yet.")
    messages: list[dict[str, Any]] = Field(description="Each with `type` (human, ai, tool…), `id` and `content`.")


@router.get("/{thread_id}", responses=problems(401, 404, 422, 503))
async def get_thread(thread_id: ThreadIdPath, caller: CallerDep, administration: AdministrationDep) -> ThreadView:
    """Where a thread stands: its release, its unfinished run, and what it waits for."""
    return ThreadView.of(await administration.thread(thread_id, caller.tenant))


@router.delete("/{thread_id}", status_code=204, responses=problems(401, 404, 422, 503))
async def delete_thread(thread_id: ThreadIdPath, caller: CallerDep, administration: AdministrationDep) -> None:
    """Delete a thread with its messages, runs and crons. An unfinished run is stopped. It cannot be undone.

    What a tool has done in another system stays done, and what was remembered for a user is kept: see `/memories`.
    Cut off? Send it again: it goes on where it stopped, and answers 404 once nothing is left.
    """
    await administration.delete_thread(thread_id, caller.tenant)


@router.get("/{thread_id}/history", responses=problems(401, 404, 422, 503))
async def get_history(
    thread_id: ThreadIdPath,
    api: Parts,
    caller: CallerDep,
    limit: Annotated[int, Query(ge=1, le=1000, description="Newest messages to return.")] = 100,
) -> History:
    """The messages of a thread as its last checkpoint has them."""
    thread = await api.ledger.thread(thread_id, caller.tenant)
    return History(
        thread_id=thread_id,
        release=thread.release,
        active_run_id=thread.active,
        messages=(await history(api.redis, api.keys, thread_id))[-limit:],
    )
