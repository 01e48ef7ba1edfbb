"""The checker: what must hold of a history, whatever was hurt. Pure: a history in, violations out.

| violation       | what was found                                                                           |
|-----------------|------------------------------------------------------------------------------------------|
| lost            | an accepted run that never ended, or that Redis does not know any more                   |
| two-runs        | one Idempotency-Key gave two runs, or a run that nobody asked for exists                 |
| bad-end         | a run ended as `error` or `timeout`, or was cancelled without being asked                |
| two-ends        | a run's stream has not exactly one `end`, or something after it                          |
| changed-end     | status or result of a run differ between two looks, or between record, stream and answer |
|                 | (but cancelling a run that waits for a person takes its question back)                   |
| second-effect   | an idempotent call under two keys, any other call made twice                             |
| missing-effect  | a call of a run that succeeded never happened                                            |
| foreign-effect  | a call that no message asked for                                                         |
| wrong-state     | a thread's state differs from the execution without faults                               |
| wrong-answer    | a run's answer differs from it                                                           |
| id-order        | a client got an event id that is not above the one before                                |
| gap             | a client missed an event without being told, or got one that the stream does not have    |
| torn-answer     | the pieces of the answer, superseded attempts dropped, do not begin the answer           |
| no-end          | a client's stream never gave the `end` of the run                                        |
| broken-fence    | an epoch that two processes held, or an event written under an epoch that was over       |
| leftover        | the ledger still holds something although nothing is left to do                          |
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.chaos.history import Expected, History, StoredRun, Stream, TurnHistory

IDEMPOTENT = {"put"}
"""Tools whose outside store takes the same call twice as one."""


@dataclass(frozen=True, slots=True)
class Violation:
    """`kind` as in the table; `tag` names the turn, "" when it belongs to none."""

    kind: str
    tag: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind} {self.tag}: {self.text}"


@dataclass(slots=True)
class Verdict:
    """The violations, and figures that are no violations."""

    violations: list[Violation] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    @property
    def passed(self) -> bool:
        return not self.violations

    def count(self, *kinds: str) -> int:
        return sum(violation.kind in kinds for violation in self.violations)


def check(history: History) -> Verdict:
    """All violations of `history`."""
    verdict = Verdict()
    found = verdict.violations
    asked = {run_id for turn in history.turns.values() for run_id in turn.runs}
    for turn in history.turns.values():
        expected = history.expected[turn.talk]
        found += _turn(history, turn, expected)
        found += _effects(history, turn, expected)
        for stream in turn.streams:
            found += _stream(history, turn, stream, expected)
            verdict.figures["streams"] += 1
            verdict.figures["reconnects"] += max(0, len(stream.connections) - 1)
            if _whole(stream) and _pieces(stream) != _answer_of(stream):
                verdict.figures["cut_pieces"] += 1
        verdict.figures["decisions"] += len(turn.decisions)
        verdict.figures["cancelled"] += any(look.status == "cancelled" for look in turn.looks[-1:])
    for run_id, run in history.runs.items():
        if run_id not in asked:
            found.append(Violation("two-runs", "", f"nobody asked for run {run_id} of thread {run.thread_id}"))
        found += _stored(run, _tag_of(history, run_id))
    found += _threads(history)
    found += _fences(history)
    found += [
        Violation("leftover", "", f"{name} still holds {size}") for name, size in history.leftovers.items() if size
    ]
    known = {(tag, call) for talk in history.expected.values() for tag, calls in talk.calls.items() for call in calls}
    for effect in history.effects:
        if (effect.tag, effect.call) not in known:
            found.append(Violation("foreign-effect", effect.tag, f"{effect.tool} {effect.call} was asked by nobody"))
    verdict.figures["effects"] = len(history.effects)
    verdict.figures["attempts"] = len({(held.run_id, held.epoch) for held in history.claims})
    return verdict


def _turn(history: History, turn: TurnHistory, expected: Expected) -> Iterator[Violation]:
    """The message was accepted as one run, which ended once, well, and stayed so."""
    tag = turn.turn.tag
    if not turn.runs:
        if turn.unfinished:
            yield Violation("lost", tag, f"was never accepted: {turn.unfinished}")
        return
    if turn.unfinished:
        yield Violation("lost", tag, f"run {turn.runs[-1]} did not end: {turn.unfinished}")
    first = {reply.run_id for reply in turn.replies if reply.run_id and reply.request.startswith("POST first")}
    if len(first) > 1:
        yield Violation("two-runs", tag, f"one key gave runs {sorted(first)}")
    for run_id in turn.runs:
        run = history.runs.get(run_id)
        if run is None:
            yield Violation("lost", tag, f"run {run_id} was accepted and is not in Redis")
            continue
        if run.status is None:
            yield Violation("lost", tag, f"run {run_id} has no end in Redis")
            continue
        yield from _one_end(run, turn)
        last = run_id == turn.runs[-1]
        allowed = {"success"} if last else {"interrupted"}
        if turn.turn.cancel_after is not None:
            allowed.add("cancelled")
        if run.status not in allowed:
            yield Violation("bad-end", tag, f"run {run_id} ended as {run.status}: {(run.result or {}).get('error')}")
        if run.status == "success" and (run.result or {}).get("answer") != expected.answers[tag]:
            text = (run.result or {}).get("answer")
            yield Violation("wrong-answer", tag, f"{text!r} instead of {expected.answers[tag]!r}")


def _one_end(run: StoredRun, turn: TurnHistory) -> Iterator[Violation]:
    """Everybody who saw the end saw the same one."""
    tag = turn.turn.tag
    ended = [look for look in turn.looks if look.run_id == run.run_id and look.result is not None]
    for earlier, later in pairwise(ended):
        if (earlier.status, earlier.result) != (later.status, later.result) and not _taken_back(
            turn, earlier.result, run
        ):
            yield Violation("changed-end", tag, f"run {run.run_id} was {earlier.status}, then {later.status}")
    over = False
    for look in (look for look in turn.looks if look.run_id == run.run_id):
        if over and look.result is None:
            yield Violation("changed-end", tag, f"run {run.run_id} was over, then {look.status}")
        over = over or look.result is not None
    told: list[tuple[str, Any]] = [("GET", look.result) for look in ended]
    told += [("/chat", result) for run_id, result in turn.answers if run_id == run.run_id]
    told += [
        (stream.client, seen.data)
        for stream in turn.streams
        if stream.run_id == run.run_id
        for seen in stream.events
        if seen.name == "end"
    ]
    for who, result in told:
        if result != run.result and not _taken_back(turn, result, run):
            yield Violation("changed-end", tag, f"{who} was given another end of {run.run_id} than Redis holds")


def _taken_back(turn: TurnHistory, told: dict[str, Any] | None, run: StoredRun) -> bool:
    """Whether the run had stopped for a person, and then its client cancelled it, which takes the question back."""
    asked = told is not None and told["status"] == "interrupted"
    return asked and run.status == "cancelled" and turn.turn.cancel_after is not None


def _stored(run: StoredRun, tag: str) -> Iterator[Violation]:
    """A run's stream in Redis: one end, the last; epochs never fall."""
    ends = [number for number, event in enumerate(run.events) if event.name == "end"]
    if run.status is not None and len(ends) != 1:
        yield Violation("two-ends", tag, f"the stream of {run.run_id} has {len(ends)} `end` events")
    elif ends and ends[0] != len(run.events) - 1:
        after = [event.name for event in run.events[ends[0] + 1 :]]
        yield Violation("two-ends", tag, f"the stream of {run.run_id} goes on after its end: {after}")
    newest = 0
    for event in run.events:
        if event.epoch and event.epoch < newest:
            text = f"event {event.id} of {run.run_id} was written at epoch {event.epoch}, after epoch {newest}"
            yield Violation("broken-fence", tag, text)
        newest = max(newest, event.epoch)


def _effects(history: History, turn: TurnHistory, expected: Expected) -> Iterator[Violation]:
    """Idempotent calls under one key; the others once; none missing where the run succeeded."""
    tag = turn.turn.tag
    keys: dict[str, list[str]] = defaultdict(list)
    for effect in history.effects:
        if effect.tag == tag:
            keys[effect.call].append(effect.key)
    for call, tool in expected.calls[tag].items():
        made = keys.get(call, [])
        if len(set(made)) > 1:
            yield Violation("second-effect", tag, f"{tool} {call} took effect under {len(set(made))} keys")
        elif tool not in IDEMPOTENT and len(made) > 1:
            yield Violation("second-effect", tag, f"{tool} {call} was made {len(made)} times")
    if turn.runs and (run := history.runs.get(turn.runs[-1])) is not None and run.status == "success":
        missing = sorted(set(expected.calls[tag]) - set(keys))
        if missing:
            yield Violation("missing-effect", tag, f"the run succeeded without {', '.join(missing)}")


def _stream(history: History, turn: TurnHistory, stream: Stream, expected: Expected) -> Iterator[Violation]:
    """One client's events: ids rise, none is missing, the answer once, and the end."""
    tag, who = turn.turn.tag, stream.client
    ids = [_position(seen.id) for seen in stream.events if seen.name not in ("gap", "lost")]
    for before, after in pairwise(ids):
        if after <= before:
            yield Violation("id-order", tag, f"{who} got {_text(after)} after {_text(before)}")
    run = history.runs.get(stream.run_id)
    if run is None:
        return  # told of as lost
    ended = bool(stream.events) and stream.events[-1].name == "end"
    if not ended and not turn.unfinished:
        yield Violation("no-end", tag, f"{who} never got the end of {stream.run_id}")
    if sum(seen.name == "end" for seen in stream.events) > 1:
        yield Violation("two-ends", tag, f"{who} got several ends of {stream.run_id}")
    told = any(seen.name == "gap" for seen in stream.events)
    held = [_position(event.id) for event in run.events]
    if ids and not told:
        missed = sorted({id_ for id_ in held if id_ <= max(ids)} - set(ids))
        if missed:
            text = f"{who} was not given {len(missed)} events of {stream.run_id}, the first is {_text(missed[0])}"
            yield Violation("gap", tag, text)
    foreign = sorted(set(ids) - set(held))
    if foreign:
        yield Violation("gap", tag, f"{who} got {_text(foreign[0])}, which the stream of {stream.run_id} does not have")
    pieces = _pieces(stream)
    if not expected.answers[tag].startswith(pieces):
        yield Violation("torn-answer", tag, f"{who} put together {pieces!r} instead of {expected.answers[tag]!r}")


def _pieces(stream: Stream) -> str:
    """The answer as its pieces give it: of each step, those of the last attempt that wrote any.

    A step is told by its number, which is the same in every attempt. Its end (`updates`) is no sign that its pieces
    stand: it may have been told before the step was stored, and then the step is done again.
    """
    texts: dict[int, tuple[int, str]] = {}
    attempt = 0
    for seen in stream.events:
        if seen.name == "attempt":
            attempt += 1
        elif seen.name == "messages":
            chunk, origin = seen.data["data"]
            if origin.get("langgraph_node") != "answer":
                continue
            written, text = texts.get(origin["langgraph_step"], (attempt, ""))
            texts[origin["langgraph_step"]] = (attempt, (text if written == attempt else "") + chunk["content"])
    return "".join(text for _, text in texts.values())


def _whole(stream: Stream) -> bool:
    return bool(stream.events) and stream.events[-1].name == "end" and stream.events[-1].data["status"] == "success"


def _answer_of(stream: Stream) -> str:
    return str(stream.events[-1].data["answer"])


def _threads(history: History) -> Iterator[Violation]:
    """Each thread's state is that of an execution without faults."""
    for talk, expected in history.expected.items():
        turns = [turn for turn in history.turns.values() if turn.talk == talk]
        if not turns or not turns[0].thread_id or any(turn.unfinished for turn in turns):
            continue  # told of as lost
        tag, thread = turns[-1].turn.tag, history.threads.get(turns[0].thread_id)
        if thread is None:
            yield Violation("lost", tag, f"thread {turns[0].thread_id} has no state")
            continue
        if thread.active:
            yield Violation("leftover", tag, f"thread {thread.thread_id} still has run {thread.active}")
        if any(_cancelled(history, turn) for turn in turns):
            yield from _cut_short(tag, thread.state, expected)
            continue
        if thread.waiting:
            yield Violation("wrong-state", tag, f"{', '.join(thread.waiting)} still waits to run")
        for name in sorted({*expected.state, *thread.state}):
            if thread.state.get(name) != expected.state.get(name):
                text = f"{name} is {thread.state.get(name)!r} instead of {expected.state.get(name)!r}"
                yield Violation("wrong-state", tag, text)


def _cut_short(tag: str, state: dict[str, Any], expected: Expected) -> Iterator[Violation]:
    """A cancelled run leaves a part of its work; no line of it twice, in no other order, and none of others'."""
    log = state.get("log", [])
    if [line for line in expected.state["log"] if line in set(log)] != log:
        yield Violation("wrong-state", tag, f"log is {log!r}, which is no part of {expected.state['log']!r}")


def _cancelled(history: History, turn: TurnHistory) -> bool:
    return any((run := history.runs.get(run_id)) is not None and run.status == "cancelled" for run_id in turn.runs)


def _fences(history: History) -> Iterator[Violation]:
    """No epoch of a run belongs to two processes."""
    owners: dict[tuple[str, int], set[int]] = defaultdict(set)
    for held in history.claims:
        owners[held.run_id, held.epoch].add(held.pid)
    for (run_id, epoch), pids in owners.items():
        if len(pids) > 1:
            text = f"epoch {epoch} of {run_id} was held by processes {sorted(pids)}"
            yield Violation("broken-fence", _tag_of(history, run_id), text)


def _tag_of(history: History, run_id: str) -> str:
    return next((tag for tag, turn in history.turns.items() if run_id in turn.runs), "")


def _position(event_id: str) -> tuple[int, int]:
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number or 0)


def _text(position: tuple[int, int]) -> str:
    return f"{position[0]}-{position[1]}"
