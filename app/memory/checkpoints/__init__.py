"""LangGraph checkpoints of threads over plain Redis or Valkey, each write fenced by the epoch of the run that makes it.

`RedisSaver`, with what `open_serializer` gives as its `serde`, is all that others need. `layout` says which keys there
are and how names and records are written; the scripts lie beside it. Nothing here decides when a thread ends: that is
the ledger's.
"""

from app.memory.checkpoints.errors import CheckpointDamaged, CheckpointSealed, RunNeeded, ThreadTaken
from app.memory.checkpoints.saver import RedisSaver
from app.memory.checkpoints.serializer import open_serializer, serializer

__all__ = [
    "CheckpointDamaged",
    "CheckpointSealed",
    "RedisSaver",
    "RunNeeded",
    "ThreadTaken",
    "open_serializer",
    "serializer",
]
