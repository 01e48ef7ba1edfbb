"""What a client is told while it waits: custom events on the run's stream.

{"type": "progress", "stage": "execute", "tools": ["search"]}
{"type": "answer-superseded", "message_id": …, "reason": […]}     drop the tokens of that message;
                                                                         null: all tokens so far
"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from app.infra.context import RunContext


def progress(runtime: Runtime[RunContext], stage: str, **details: Any) -> None:
    """Tell that `stage` begins. Does nothing where nobody listens."""
    runtime.stream_writer({"type": "progress", "stage": stage, **details})


def superseded(runtime: Runtime[RunContext], message_id: str | None, reason: list[str]) -> None:
    """Tell that a draft, whose tokens have been streamed, will not be the answer."""
    runtime.stream_writer({"type": "answer-superseded", "message_id": message_id, "reason": reason})
