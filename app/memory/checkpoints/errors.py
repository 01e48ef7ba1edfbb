"""What only the checkpoint saver raises. Outages and old epochs have their errors in `app.infra.errors`."""

from __future__ import annotations

from app.infra.errors import Conflict, SlipwayError


class CheckpointDamaged(SlipwayError):
    """A checkpoint is there but a part of it is not: keys were evicted or removed by hand."""

    def __init__(self, thread_id: str, checkpoint_id: str, part: str) -> None:
        super().__init__(
            f"checkpoint {checkpoint_id} of thread {thread_id} has lost {part}",
            fix="set Redis to maxmemory-policy noeviction, then begin a new thread or go on from an older checkpoint",
        )
        self.thread_id, self.checkpoint_id, self.part = thread_id, checkpoint_id, part


class ThreadTaken(Conflict):
    """The target of a copy has checkpoints of its own."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"thread {thread_id} has checkpoints of its own", fix="copy to a new thread")
        self.thread_id = thread_id
