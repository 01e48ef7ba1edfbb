"""GET /memories, DELETE /memories/{memory_id}, DELETE /memories: what a user asked to be remembered."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from app.api.dependencies import CallerDep, Parts
from app.api.problems import problems

router = APIRouter(prefix="/memories", tags=["memories"])
_PROBLEMS = problems(401, 422, 503)

MemoryId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class MemoryView(BaseModel):
    """One remembered text."""

    id: str
    text: str
    created_at: str = Field(description="ISO 8601.")


class Deleted(BaseModel):
    deleted: int = Field(description="How many memories were forgotten.")


@router.get("", responses=_PROBLEMS)
async def list_memories(
    api: Parts,
    caller: CallerDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> list[MemoryView]:
    """What is remembered for the calling user (X-User-Id, else the key's own), newest first."""
    memories = await (await api.memories.get()).list(caller.tenant, caller.user, limit=limit, offset=offset)
    return [MemoryView(id=memory.id, text=memory.text, created_at=memory.created_at) for memory in memories]


@router.delete("/{memory_id}", responses={**_PROBLEMS, **problems(404)})
async def delete_memory(memory_id: MemoryId, api: Parts, caller: CallerDep) -> Deleted:
    """Forget one memory of the calling user."""
    await (await api.memories.get()).delete(caller.tenant, caller.user, memory_id)
    return Deleted(deleted=1)


@router.delete("", responses=_PROBLEMS)
async def delete_memories(api: Parts, caller: CallerDep) -> Deleted:
    """Forget everything about the calling user."""
    return Deleted(deleted=await (await api.memories.get()).delete_all(caller.tenant, caller.user))
