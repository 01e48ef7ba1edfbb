"""What the routes answer with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.runs.administration.details import ThreadDetail, thread_json
from app.runs.model import Run


class Usage(BaseModel):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class Source(BaseModel, extra="allow"):
    """What an answer rests on."""

    title: str
    uri: str


class Answer(BaseModel, extra="allow"):
    """What a run came to."""

    answer: str
    thread_id: str = Field(description="Send it with the next message to go on with the conversation.")
    run_id: str
    status: str = Field(description="`success`, or `interrupted` when the agent asks for a person.")
    release: str = Field(description="Which release answered.")
    graph: str
    model: str | None = Field(description="Which model wrote the answer; null when none did.")
    sources: list[Source]
    usage: Usage = Field(description="Tokens of all model calls of the run.")
    cost_usd: float | None = Field(description="Price of those calls; null when a price is not known.")
    finish_reason: str = Field(
        description="`stop`; `length`: the answer was cut off at the model's limit of tokens; `max_iterations`: the "
        "run was ended at MAX_ITERATIONS."
    )
    attempt: int = Field(description="How many attempts it took.")


class RunView(BaseModel):
    """Where a run stands."""

    run_id: str
    thread_id: str
    status: str = Field(description="pending, running, success, error, timeout, interrupted or cancelled")
    graph: str
    release: str
    attempt: int = Field(description="Attempts begun so far.")
    created_at: datetime
    ended_at: datetime | None
    result: dict[str, Any] | None = Field(description="What `/chat` answers with, once the run has ended.")
    stream_url: str = Field(description="Where its events can be read, from the first one on.")

    @classmethod
    def of(cls, run: Run) -> RunView:
        return cls(
            run_id=run.run_id,
            thread_id=run.thread_id,
            status=run.status,
            graph=run.graph,
            release=run.release,
            attempt=run.attempt,
            created_at=time_of(run.accepted_ms),
            ended_at=None if run.ended_ms is None else time_of(run.ended_ms),
            result=run.result,
            stream_url=f"/runs/{run.run_id}/stream",
        )


class Asked(BaseModel):
    """What a thread waits for."""

    run_id: str = Field(description="The run that asked.")
    interrupts: list[dict[str, Any]] = Field(description="Its questions, each as {id, value}.")


class ThreadView(BaseModel):
    """Where a thread stands; its messages are at `/threads/{thread_id}/history`."""

    thread_id: str
    release: str = Field(description="The release that the thread stays on.")
    status: Literal["idle", "busy", "interrupted"] = Field(description="interrupted: it waits for a person's answer.")
    created_at: datetime
    updated_at: datetime | None = Field(description="When its last run ended.")
    active_run_id: str | None = Field(description="Its unfinished run, if any.")
    waiting: int = Field(description="Runs that wait behind that one.")
    asked: Asked | None = Field(description="What it waits for, if anything.")

    @classmethod
    def of(cls, thread: ThreadDetail) -> ThreadView:
        return cls.model_validate(thread_json(thread))


def time_of(milliseconds: int) -> datetime:
    """A moment of Redis's clock."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
