"""Where a thread's checkpoints lie in Redis, and how names and records are written.

| key                              | type | holds                                                              |
|----------------------------------|------|--------------------------------------------------------------------|
| {agent-tasks}:cp:<thread>:index  | zset | name of each checkpoint, score 0: lexical order is order of age    |
| {agent-tasks}:cp:<thread>:records| hash | name -> record: its parent, its values' names, checkpoint, metadata|
| {agent-tasks}:cp:<thread>:blobs  | hash | namespace, channel, version -> value; each version stored once     |
| {agent-tasks}:cp:<thread>:writes | hash | name, task, index -> what the task wrote after that checkpoint     |
| {agent-tasks}:cp:<thread>:written| zset | names of those writes, score 0, to find them by checkpoint         |
| {agent-tasks}:cp-run:<run>       | set  | threads in which the run has made checkpoints                      |
| {agent-tasks}:cp-threads         | zset | threads that have checkpoints, score: end of their life, unix s    |

Five keys per thread, however many checkpoints and subgraphs it has: each write renews the life of all five at the
same moment, so no part of a living thread can run out before another. A name is `<namespace>NUL<checkpoint id>`; the
parts of longer names are joined by NUL too, which no namespace may hold.

A record names the run that made it, and so does a write; a write that took the place of another run's carries that
one behind it. So what a run has done to a thread can be taken back (`rollback`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

from app.infra.ids import ThreadId, is_id
from app.infra.keys import Keys

NUL = "\0"
_HEAD_BYTES = 4
"""Length of the number that says how long the head of a record or write is; big-endian, as the scripts read it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which checkpoints a config speaks of. `checkpoint_id` is empty for the newest, `namespace` None for any."""

    thread_id: ThreadId
    namespace: str | None
    checkpoint_id: str

    @classmethod
    def of(cls, config: RunnableConfig) -> Self:
        """Raises ValueError for a thread id that cannot stand in a key and for a NUL in the other two."""
        fields = config["configurable"]
        namespace = fields.get("checkpoint_ns")
        checkpoint_id = str(fields.get("checkpoint_id") or "")
        if NUL in checkpoint_id or NUL in (namespace or ""):
            raise ValueError(
                "checkpoint_ns and checkpoint_id must not hold a NUL character; use those that a run reported"
            )
        return cls(thread(fields["thread_id"]), namespace, checkpoint_id)

    @property
    def name(self) -> str:
        """The checkpoint's name; without an id it asks `read.lua` for the newest of the namespace."""
        return f"{self.namespace or ''}{NUL}{self.checkpoint_id}"

    def config(self, checkpoint_id: str) -> RunnableConfig:
        return config_of(self.thread_id, self.namespace or "", checkpoint_id)


def config_of(thread_id: ThreadId, namespace: str, checkpoint_id: str) -> RunnableConfig:
    """The config that names one checkpoint."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}}


def thread(thread_id: object) -> ThreadId:
    """A thread id that is safe in a key. Raises ValueError."""
    text = str(thread_id)
    if not is_id(text):
        raise ValueError("thread_id must be 1 to 64 letters, digits, '_', '.' or '-', and begin with a letter or digit")
    return ThreadId(text)


@dataclass(frozen=True, slots=True)
class ThreadKeys:
    """The five keys of a thread."""

    index: str
    records: str
    blobs: str
    writes: str
    written: str

    @classmethod
    def of(cls, keys: Keys, thread_id: ThreadId) -> Self:
        root = keys.checkpoints(thread_id)
        return cls(f"{root}:index", f"{root}:records", f"{root}:blobs", f"{root}:writes", f"{root}:written")

    @property
    def all(self) -> list[str]:
        return [self.index, self.records, self.blobs, self.writes, self.written]


def split(name: str) -> tuple[str, str]:
    """Namespace and checkpoint id of a name."""
    namespace, _, checkpoint_id = name.partition(NUL)
    return namespace, checkpoint_id


def blob_name(namespace: str, channel: str, version: str | int | float) -> str:
    return f"{namespace}{NUL}{channel}{NUL}{version}"


def channel_of(blob: str, namespace: str) -> str:
    """The channel in a blob's name. The version after it holds no NUL; the channel might."""
    return blob[len(namespace) + 1 :].rpartition(NUL)[0]


def write_value(serde: SerializerProtocol, value: Any) -> bytes:
    kind, data = serde.dumps_typed(value)
    return kind.encode() + b"\0" + data


def read_value(serde: SerializerProtocol, stored: bytes) -> Any:
    kind, _, data = stored.partition(b"\0")
    return serde.loads_typed((kind.decode(), data))


@dataclass(frozen=True, slots=True)
class Record:
    """One checkpoint without the values of its channels.

    Stored as a head that scripts read too (msgpack: run id, parent, then the names of the values) and a body that only
    the saver reads; the serializer has made checkpoint and metadata bytes, so it may encrypt them.
    """

    run_id: str
    """Empty when the checkpoint names none."""
    parent: str
    """Checkpoint id of the parent; empty for a first one."""
    blobs: list[str]
    checkpoint: tuple[str, bytes]
    metadata: tuple[str, bytes]

    def dump(self) -> bytes:
        return _framed([self.run_id, self.parent, *self.blobs], ormsgpack.packb([*self.checkpoint, *self.metadata]))

    @classmethod
    def load(cls, stored: bytes) -> Self:
        (run_id, parent, *blobs), body = _unframed(stored)
        kind, checkpoint, metadata_kind, metadata = ormsgpack.unpackb(body)
        return cls(run_id, parent, blobs, (kind, checkpoint), (metadata_kind, metadata))


def dump_write(serde: SerializerProtocol, run_id: str, channel: str, task_path: str, value: Any) -> bytes:
    """A write as a head that scripts read too (msgpack: run id, channel, task path, length of the value) and its value.

    `run_id` is empty outside a run. Whatever follows the value is the write of another run whose place this one took,
    in the same form: `put_writes.lua` keeps it there.
    """
    body = write_value(serde, value)
    return _framed([run_id, channel, task_path, len(body)], body)


def writer_of(stored: bytes) -> tuple[str, str]:
    """Run id and channel of a write."""
    head, _ = _unframed(stored)
    return head[0], head[1]


def parent_of(name: str, record: Record) -> str:
    """The name of a checkpoint's parent; empty for a first one."""
    return f"{split(name)[0]}{NUL}{record.parent}" if record.parent else ""


def write_slot(channel: str, position: int) -> int:
    """Index of a write among its task's; errors, interrupts and resumes have negative ones of their own."""
    return WRITES_IDX_MAP.get(channel, position)


def load_writes(serde: SerializerProtocol, names: list[bytes], stored: list[bytes]) -> list[tuple[str, str, Any]]:
    """Pending writes as (task id, channel, value), in the order in which a run applies them."""
    writes = []
    for name, packed in zip(names, stored, strict=True):
        _, _, task_id, slot = name.decode().split(NUL)
        (_, channel, task_path, length), value = _unframed(packed)
        order = writes_sort_key(task_path, task_id, int(slot))
        writes.append((order, (task_id, channel, read_value(serde, value[:length]))))
    writes.sort(key=lambda write: write[0])
    return [write for _, write in writes]


def _framed(head: Sequence[str | int], body: bytes) -> bytes:
    """A head that scripts can read (their msgpack knows text, not binary) before a body that they only pass on."""
    packed = ormsgpack.packb(head)
    return len(packed).to_bytes(_HEAD_BYTES, "big") + packed + body


def _unframed(stored: bytes) -> tuple[list[Any], bytes]:
    end = _HEAD_BYTES + int.from_bytes(stored[:_HEAD_BYTES], "big")
    return ormsgpack.unpackb(stored[_HEAD_BYTES:end]), stored[end:]
