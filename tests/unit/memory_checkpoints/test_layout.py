"""How checkpoints are named and written, and what the saver refuses before it asks Redis."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED
from langgraph.types import Send

from app.infra.ids import ThreadId
from app.infra.keys import Keys
from app.memory.checkpoints import RedisSaver, layout, serializer
from app.memory.checkpoints.layout import NUL, Place, Record, ThreadKeys

TEXT = st.text(st.characters(codec="utf-8", exclude_characters=NUL), max_size=20)
INTEGERS = st.integers(-(2**63), 2**64 - 1)
"""What msgpack can hold; a larger one in a graph's state is a TypeError from the serializer."""


@given(TEXT, st.lists(TEXT, max_size=5), TEXT, st.binary(max_size=50), st.binary(max_size=50))
def test_a_record_is_read_as_it_was_written(
    run_id: str, blobs: list[str], parent: str, checkpoint: bytes, metadata: bytes
) -> None:
    """Bytes go in raw, whatever they hold."""
    record = Record(run_id, parent, blobs, ("msgpack", checkpoint), ("msgpack+aes", metadata))
    assert Record.load(record.dump()) == record


@given(TEXT, TEXT, st.one_of(st.integers(0), st.text("0123456789.", min_size=1)))
def test_a_channel_is_found_in_the_name_of_its_value(namespace: str, channel: str, version: Any) -> None:
    """Channels are named by users: `branch:to:x`, `a+b`, anything."""
    assert layout.channel_of(layout.blob_name(namespace, channel, version), namespace) == channel


@given(TEXT, TEXT)
def test_a_name_is_split_where_it_was_joined(namespace: str, checkpoint_id: str) -> None:
    place = Place(ThreadId("t"), namespace, checkpoint_id)
    assert layout.split(place.name) == (namespace, checkpoint_id)


@given(st.one_of(st.none(), INTEGERS, TEXT, st.binary(), st.lists(INTEGERS)))
def test_a_value_is_read_as_it_was_written(value: Any) -> None:
    assert layout.read_value(serializer(), layout.write_value(serializer(), value)) == value


def test_writes_come_in_the_order_in_which_a_run_applies_them() -> None:
    """By path, task and number: a task's tenth write after its second, not before."""
    serde = serializer()
    given = [("p2", "a", 0), ("p1", "b", 10), ("p1", "b", 2), ("", "c", 0), ("p1", "a", -1)]
    names = [f"ns{NUL}id{NUL}{task}{NUL}{slot}".encode() for _, task, slot in given]
    stored = [layout.dump_write(serde, "r", "c", path, [path, slot]) for path, _, slot in given]
    values = [value for _, _, value in layout.load_writes(serde, names, stored)]
    assert values == [["", 0], ["p1", -1], ["p1", 2], ["p1", 10], ["p2", 0]]


def test_special_writes_have_places_that_no_position_reaches() -> None:
    """Else a task's error would take the place of one of its results."""
    assert [layout.write_slot(channel, 3) for channel in (ERROR, SCHEDULED, INTERRUPT, RESUME)] == [-1, -2, -3, -4]
    assert layout.write_slot("messages", 3) == 3


@pytest.mark.parametrize("thread_id", ["", "a b", "a:b", "{x}", "a\n", "../x", "x" * 65, "*"])
def test_a_thread_id_that_cannot_stand_in_a_key_is_refused(thread_id: str) -> None:
    """Thread ids come from users; one must not reach the keys of another."""
    with pytest.raises(ValueError, match="thread_id must be 1 to 64 letters"):
        Place.of({"configurable": {"thread_id": thread_id}})


@pytest.mark.parametrize("field", ["checkpoint_ns", "checkpoint_id"])
def test_a_nul_in_a_namespace_or_id_is_refused(field: str) -> None:
    """NUL joins the parts of names."""
    with pytest.raises(ValueError, match="must not hold a NUL"):
        Place.of({"configurable": {"thread_id": "t", field: "a\0b"}})


def test_all_keys_of_a_thread_bear_the_one_hash_tag() -> None:
    """A script may touch them together on a Redis Cluster; the run's set is among them."""
    keys = Keys()
    names = [*ThreadKeys.of(keys, ThreadId("t")).all, keys.checkpoint_run("any {run}:id")]
    assert all(name.count("{") == 1 and name.startswith("{agent-tasks}:cp") for name in names)
    assert len(set(names)) == 6


def test_versions_rise_and_differ_between_rivals() -> None:
    """Two attempts that compute the same step must not write to the same name."""
    saver = RedisSaver(None, Keys(), fence=None, ttl_seconds=1)
    version: str | None = None
    seen = []
    for _ in range(12):
        version = saver.get_next_version(version, None)
        seen.append(version)
    assert seen == sorted(seen)
    assert len({saver.get_next_version(seen[0], None) for _ in range(10)}) == 10


def test_a_thread_must_live_at_least_a_second() -> None:
    with pytest.raises(ValueError, match="ttl_seconds must be at least 1"):
        RedisSaver(None, Keys(), fence=None, ttl_seconds=0)


def test_a_saver_made_outside_a_loop_says_so_when_it_is_used_synchronously() -> None:
    saver = RedisSaver(None, Keys(), fence=None, ttl_seconds=1)
    with pytest.raises(RuntimeError, match="made outside an event loop"):
        saver.get_tuple({"configurable": {"thread_id": "t"}})


@dataclass
class Declared:
    text: str


def test_only_safe_and_allowed_types_are_built_from_bytes(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever can write to Redis must not get to choose which class is called."""
    stored = serializer().dumps_typed([Declared("x"), AIMessage("hi"), Send("node", 1)])
    with caplog.at_level(logging.CRITICAL):
        plain, message, send = serializer().loads_typed(stored)
    assert plain == {"text": "x"}
    assert message == AIMessage("hi")
    assert send == Send("node", 1)
    assert serializer([Declared]).loads_typed(stored)[0] == Declared("x")
    assert serializer([(__name__, "Declared")]).loads_typed(stored)[0] == Declared("x")


def test_nothing_is_pickled() -> None:
    """Reading a pickle runs whatever it names."""
    with pytest.raises(NotImplementedError, match="Unknown serialization type: pickle"):
        serializer().loads_typed(("pickle", b"\x80\x04N."))
    with pytest.raises(TypeError):
        serializer().dumps_typed(object())
