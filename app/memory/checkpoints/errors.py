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


class RunNeeded(Conflict):
    """A run's checkpoints cannot go: later ones are computed from what it has added to a `DeltaChannel`."""

    def __init__(self, run_id: str, thread_id: str) -> None:
        super().__init__(
            f"later checkpoints of thread {thread_id} are computed from those of run {run_id}",
            fix="prune the thread first, which leaves what its newest state needs, or delete the later runs with it",
        )
        self.run_id, self.thread_id = run_id, thread_id


class CheckpointSealed(SlipwayError):
    """A checkpoint is encrypted and cannot be opened here. `cipher` names the key, not its value."""

    def __init__(self, cipher: str, problem: str = "no such key is set") -> None:
        super().__init__(
            f"a checkpoint is encrypted with {cipher}: {problem}",
            fix="name the key that wrote it in CHECKPOINT_ENCRYPTION_KEY, after the one that writes now",
        )
        self.cipher = cipher
