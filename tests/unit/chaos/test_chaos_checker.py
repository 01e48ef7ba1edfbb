"""The checker of chaos runs: a good history passes, and each kind of violation is seen in a history that has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checker import check
from tests.chaos.history import (
    Expected,
    History,
    Look,
    Reply,
    Seen,
    StoredEvent,
    StoredRun,
    StoredThread,
    Stream,
    TurnHistory,
)
from tests.chaos.outside import Effect, Held
from tests.chaos.plan import Job, Plan, Step, Talk, Turn

RUN, THREAD, TAG = "run-1", "thread-1", "t0-0"
ANSWER = "one two "
RESULT: dict[str, Any] = {"run_id": RUN, "thread_id": THREAD, "status": "success", "attempt": 1, "answer": ANSWER}
STATE: dict[str, Any] = {"log": ["t0-0 read", "t0-0 answer"], "total": 2}


def piece(id_: str, text: str, step: int = 5) -> Seen:
    origin = {"langgraph_node": "answer", "langgraph_step": step}
    return Seen(1, id_, "messages", {"ns": [], "data": [{"content": text}, origin]})


def good(cancel_after: float | None = None) -> History:
    """One talk of one turn: a call of each kind, a stream with two pieces, no faults."""
    job = Job(TAG, (Step("put", "b0", 0),), (Step("charge", "w0", 0),), 0, 2, 0)
    turn = Turn(job, "stream", cancel_after=cancel_after)
    history = History(Plan(1, 1.0, (Talk("t0", 0, (turn,)),), ()))
    stream = Stream(
        "streamer",
        RUN,
        [
            Seen(1, "1-0", "metadata", {}),
            Seen(1, "2-0", "attempt", {"attempt": 1}),
            piece("3-0", "one "),
            piece("3-1", "two "),
            Seen(1, "4-0", "end", RESULT),
        ],
        [(1, 0, "0-0")],
    )
    history.turns[TAG] = TurnHistory(
        turn,
        "t0",
        "key",
        THREAD,
        [RUN],
        replies=[Reply(1, "POST first /api/stream", 0, 200, RUN)],
        streams=[stream],
        looks=[Look(0.5, RUN, "running", None), Look(2, RUN, "success", RESULT), Look(9, RUN, "success", RESULT)],
    )
    events = [("1-0", "metadata", 0), ("2-0", "attempt", 7), ("3-0", "messages", 7), ("3-1", "messages", 7)]
    stored = tuple(StoredEvent(*event) for event in [*events, ("4-0", "end", 0)])
    history.runs[RUN] = StoredRun(RUN, THREAD, "success", RESULT, stored)
    history.threads[THREAD] = StoredThread(THREAD, dict(STATE), ())
    history.effects = [Effect("k1", TAG, "b0", "put", 10), Effect("k2", TAG, "w0", "charge", 10)]
    history.claims = [Held(RUN, 7, 10), Held(RUN, 7, 10)]
    history.expected["t0"] = Expected(dict(STATE), {TAG: ANSWER}, {TAG: {"b0": "put", "w0": "charge"}})
    history.leftovers = {"queue": 0, "epochs": 0}
    return history


def kinds(history: History) -> set[str]:
    return {violation.kind for violation in check(history).violations}


def store(history: History, **changes: Any) -> None:
    history.runs[RUN] = replace(history.runs[RUN], **changes)


def test_a_good_history_passes() -> None:
    """Else every other test here proves nothing."""
    verdict = check(good())
    assert verdict.passed, [str(violation) for violation in verdict.violations]


def never_ended(history: History) -> None:
    history.turns[TAG].unfinished = "no end after 180 s"


def gone_from_redis(history: History) -> None:
    del history.runs[RUN]


def no_end_in_redis(history: History) -> None:
    store(history, status=None, result=None)


def thread_gone(history: History) -> None:
    history.threads.clear()


def never_accepted(history: History) -> None:
    history.turns[TAG] = TurnHistory(history.turns[TAG].turn, "t0", "key", unfinished="no api answered")


def one_key_two_runs(history: History) -> None:
    history.turns[TAG].replies.append(Reply(2, "POST first again /chat", 1, 200, "run-2"))


def run_of_nobody(history: History) -> None:
    history.runs["run-9"] = replace(history.runs[RUN], run_id="run-9")


def failed(history: History) -> None:
    store(history, status="error")


def cancelled_unasked(history: History) -> None:
    store(history, status="cancelled")


def second_end(history: History) -> None:
    store(history, events=(*history.runs[RUN].events, StoredEvent("5-0", "end")))


def written_after_the_end(history: History) -> None:
    store(history, events=(*history.runs[RUN].events, StoredEvent("5-0", "updates", 7)))


def end_seen_twice(history: History) -> None:
    history.turns[TAG].streams[0].events.append(Seen(3, "5-0", "end", RESULT))


def status_changed(history: History) -> None:
    history.turns[TAG].looks.append(Look(10, RUN, "cancelled", {**RESULT, "status": "cancelled"}))


def running_again(history: History) -> None:
    history.turns[TAG].looks.append(Look(10, RUN, "running", None))


def chat_told_otherwise(history: History) -> None:
    history.turns[TAG].answers.append((RUN, {**RESULT, "attempt": 2}))


def idempotent_under_two_keys(history: History) -> None:
    history.effects.append(Effect("k3", TAG, "b0", "put", 11))


def charged_twice(history: History) -> None:
    history.effects.append(Effect("k2", TAG, "w0", "charge", 11))


def not_charged(history: History) -> None:
    history.effects.pop()


def asked_by_nobody(history: History) -> None:
    history.effects.append(Effect("k9", TAG, "w7", "put", 10))


def step_applied_twice(history: History) -> None:
    history.threads[THREAD] = StoredThread(THREAD, {"log": [*STATE["log"], "t0-0 answer"], "total": 3}, ())


def step_still_waits(history: History) -> None:
    history.threads[THREAD] = StoredThread(THREAD, dict(STATE), ("answer",))


def other_answer(history: History) -> None:
    store(history, result={**RESULT, "answer": "three"})


def id_repeated(history: History) -> None:
    events = history.turns[TAG].streams[0].events
    events.insert(3, events[2])


def ids_fall(history: History) -> None:
    events = history.turns[TAG].streams[0].events
    events[1], events[2] = events[2], events[1]


def event_missed(history: History) -> None:
    del history.turns[TAG].streams[0].events[1]


def event_invented(history: History) -> None:
    history.turns[TAG].streams[0].events.insert(3, Seen(1, "3-0", "custom", {}))
    history.turns[TAG].streams[0].events[3].id = "3-7"
    del history.turns[TAG].streams[0].events[4]


def superseded_pieces_kept(history: History) -> None:
    """The same step again without an `attempt` event: a client cannot know what to drop."""
    events = history.turns[TAG].streams[0].events
    events[4:4] = [piece("3-2", "one "), piece("3-3", "two ")]
    ids = [*history.runs[RUN].events[:-1], StoredEvent("3-2", "messages", 7), StoredEvent("3-3", "messages", 7)]
    store(history, events=(*ids, history.runs[RUN].events[-1]))


def end_never_came(history: History) -> None:
    history.turns[TAG].streams[0].events.pop()


def epoch_of_two(history: History) -> None:
    history.claims.append(Held(RUN, 7, 11))


def stale_event(history: History) -> None:
    events = list(history.runs[RUN].events)
    events[2] = StoredEvent("3-0", "messages", 8)
    store(history, events=tuple(events))


def queue_not_empty(history: History) -> None:
    history.leftovers["queue"] = 1


def thread_still_busy(history: History) -> None:
    history.threads[THREAD] = StoredThread(THREAD, dict(STATE), (), active=RUN)


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (never_ended, "lost"),
        (gone_from_redis, "lost"),
        (no_end_in_redis, "lost"),
        (thread_gone, "lost"),
        (never_accepted, "lost"),
        (one_key_two_runs, "two-runs"),
        (run_of_nobody, "two-runs"),
        (failed, "bad-end"),
        (cancelled_unasked, "bad-end"),
        (second_end, "two-ends"),
        (written_after_the_end, "two-ends"),
        (end_seen_twice, "two-ends"),
        (status_changed, "changed-end"),
        (running_again, "changed-end"),
        (chat_told_otherwise, "changed-end"),
        (idempotent_under_two_keys, "second-effect"),
        (charged_twice, "second-effect"),
        (not_charged, "missing-effect"),
        (asked_by_nobody, "foreign-effect"),
        (step_applied_twice, "wrong-state"),
        (step_still_waits, "wrong-state"),
        (other_answer, "wrong-answer"),
        (id_repeated, "id-order"),
        (ids_fall, "id-order"),
        (event_missed, "gap"),
        (event_invented, "gap"),
        (superseded_pieces_kept, "torn-answer"),
        (end_never_came, "no-end"),
        (epoch_of_two, "broken-fence"),
        (stale_event, "broken-fence"),
        (queue_not_empty, "leftover"),
        (thread_still_busy, "leftover"),
    ],
)
def test_a_harmed_history_is_refused(harm: Callable[[History], None], kind: str) -> None:
    """A checker that misses this would let a service pass that does it."""
    history = good()
    harm(history)
    assert kind in kinds(history)


def test_what_is_done_again_under_its_key_is_one_effect() -> None:
    """An idempotent call may reach the outside store twice: the store takes both as one."""
    history = good()
    history.effects.append(Effect("k1", TAG, "b0", "put", 11))
    assert check(history).passed


def test_pieces_of_a_superseded_attempt_are_dropped() -> None:
    """The step comes again after an `attempt` event, under the same number: only its last making counts."""
    history = good()
    again = [Seen(1, "3-2", "attempt", {"attempt": 2}), piece("3-3", "one "), piece("3-4", "two ")]
    history.turns[TAG].streams[0].events[4:4] = again
    added = [StoredEvent(seen.id, seen.name, 8) for seen in again]
    store(history, events=(*history.runs[RUN].events[:-1], *added, history.runs[RUN].events[-1]))
    history.claims.append(Held(RUN, 8, 11))
    assert check(history).passed


def test_a_gap_that_is_told_is_none() -> None:
    """Trimmed history is answered with a `gap` event; only silence is wrong."""
    history = good()
    events = history.turns[TAG].streams[0].events
    events[1] = Seen(1, "1-0", "gap", {"after": "1-0"})
    assert check(history).passed


def test_a_cancelled_run_may_leave_a_part_of_its_work_but_no_line_twice() -> None:
    """Where it was cut off is chance; what it did before is not."""
    history = good(cancel_after=0.1)
    ended = {**RESULT, "status": "cancelled"}
    store(history, status="cancelled", result=ended)
    turn = history.turns[TAG]
    turn.looks = [Look(2, RUN, "cancelled", ended)]
    turn.streams[0].events[-1].data = ended
    history.threads[THREAD] = StoredThread(THREAD, {"log": ["t0-0 read"], "total": 1}, ("answer",))
    history.effects.pop()
    assert check(history).passed
    history.threads[THREAD] = StoredThread(THREAD, {"log": ["t0-0 read", "t0-0 read"], "total": 2}, ())
    assert kinds(history) == {"wrong-state"}


@pytest.mark.parametrize("asked", [True, False])
def test_only_cancelling_takes_a_question_back(asked: bool) -> None:
    """A run that waits for a person is over, and stays what it is unless its client cancels it."""
    history = good(cancel_after=0.1 if asked else None)
    waits, ended = {**RESULT, "status": "interrupted"}, {**RESULT, "status": "cancelled"}
    store(history, status="cancelled", result=ended)
    turn = history.turns[TAG]
    turn.looks = [Look(2, RUN, "interrupted", waits), Look(3, RUN, "cancelled", ended)]
    turn.streams[0].events[-1].data = waits
    history.threads[THREAD] = StoredThread(THREAD, {"log": ["t0-0 read"], "total": 1}, ("work",))
    assert ("changed-end" in kinds(history)) is not asked
    assert check(history).passed is asked


def test_a_violation_is_told_with_the_thread_s_whole_history() -> None:
    """Who reads it was not there."""
    history = good()
    history.note("fault 3: kill worker1")
    history.notes[-1] = (1.5, history.notes[-1][1])
    told = history.tell(TAG)
    for part in ("POST first /api/stream", "streamer 4-0 end", "EFFECT", "epoch 7", "fault 3: kill worker1", "stored"):
        assert part in told
