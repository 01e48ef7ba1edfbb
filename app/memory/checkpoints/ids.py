"""Checkpoint ids rise along a thread, whichever machine's clock made them.

An id is a UUIDv6 of the worker's clock, and the newest checkpoint of a thread is the one with the highest id. Where one
worker's clock is ahead, what another adds to the thread would sort below what is there, and never be found again. So
who has read a checkpoint makes only ids above it: the rule of a logical clock, over the one that LangGraph keeps.
"""

from __future__ import annotations

import uuid

from langgraph.checkpoint.base import id as made


def stay_above(checkpoint_id: str) -> None:
    """Let every id that this process makes from now on sort after `checkpoint_id`; nothing for one that is no UUIDv6.

    LangGraph already never goes below its own last one, for a clock that is set back: this moves that mark.
    """
    try:
        seen = uuid.UUID(checkpoint_id)
    except ValueError:
        return
    if seen.version != 6:
        return
    time = (seen.time_low << 28) | (seen.time_mid << 12) | (seen.time_hi_version & 0x0FFF)
    if made._last_v6_timestamp is None or made._last_v6_timestamp < time:
        made._last_v6_timestamp = time  # type: ignore[assignment]  # declared as None, for want of an annotation
