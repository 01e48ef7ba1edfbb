"""GET /threads/{thread_id}/history."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.dependencies import CallerDep, Parts, ThreadIdPath
from app.api.problems import problems
from app.runs.history import history

router = APIRouter(prefix="/threads", tags=["threads"])


class History(BaseModel):
    """A conversation so far, oldest message first."""

    thread_id: str
    release: str = Field(description="The release that the thread stays on.")
    active_run_id: str | None = Field(description="Its unfinished run, if any; its messages are not here yet.")
    messages: list[dict[str, Any]] = Field(description="Each with `type` (human, ai, tool…), `id` and `content`.")


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
