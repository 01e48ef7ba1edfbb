"""Checkpoint ids rise along a thread even where clocks differ."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base import id as made

from app.memory.checkpoints.ids import stay_above


@pytest.fixture(autouse=True)
def mark() -> Iterator[None]:
    """Puts LangGraph's mark back: the other tests of this process make ids of the true time."""
    before = made._last_v6_timestamp
    made._last_v6_timestamp = None
    yield
    made._last_v6_timestamp = before


def id_at(seconds: float, monkeypatch: pytest.MonkeyPatch) -> str:
    """An id as a process makes it whose clock shows `seconds`."""
    with monkeypatch.context() as clock:
        clock.setattr(time, "time_ns", lambda: int(seconds * 1e9))
        found = str(made.uuid6(clock_seq=-2))
    made._last_v6_timestamp = None
    return found


def test_what_follows_a_checkpoint_from_a_clock_ahead_sorts_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a whole run on a thread is stored, and the thread's newest checkpoint stays the one before it."""
    ahead = id_at(time.time() + 7200, monkeypatch)
    assert empty_checkpoint()["id"] < ahead, "the clock of this process is behind"
    stay_above(ahead)
    following = [empty_checkpoint()["id"] for _ in range(3)]
    assert [ahead, *following] == sorted([ahead, *following])


def test_an_older_checkpoint_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids go on to show the time at which they were made."""
    behind = id_at(time.time() - 7200, monkeypatch)
    newest = empty_checkpoint()["id"]
    stay_above(behind)
    assert empty_checkpoint()["id"] > newest


@pytest.mark.parametrize("other", ["1", "", "not-an-id", str(uuid.uuid4())])
def test_an_id_of_another_kind_is_left_alone(other: str) -> None:
    """Savers may be given ids that somebody made up."""
    stay_above(other)
    assert made._last_v6_timestamp is None
