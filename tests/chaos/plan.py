"""What will be asked and what will be hurt, all of it from the seed: the same seed gives the same plan.

Only the plan repeats. Which instruction a fault meets depends on the machine, so a seed that found a violation is run
several times to find it again.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Mode = Literal["chat", "async", "stream"]
Kind = Literal[
    "kill",  # SIGKILL of a worker
    "freeze",  # SIGSTOP of a worker, SIGCONT after more than its lease
    "isolate",  # a worker's network goes silent for more than its lease
    "drain",  # SIGTERM of a worker
    "clock",  # a worker's clock jumps
    "cut",  # connections of a worker or an api to Redis end
    "lose",  # replies of Redis to one of them are lost
    "restart",  # of Redis
    "stall",  # Redis answers nobody for more than a lease
    "kill-api",
    "drain-api",
    "freeze-api",
]

SECONDS_PER_FAULT = 2.0
"""Mean pause between two faults: a take-over has time to happen, and to be hit itself by the next one."""

AIMABLE: tuple[Kind, ...] = ("kill", "freeze", "isolate")
"""Kinds of which half wait for the moment that hurts most."""

# How often each kind comes. Each kind also comes at least once in a plan that is long enough.
WEIGHTS: dict[Kind, int] = {
    "kill": 20,
    "freeze": 20,
    "cut": 16,
    "lose": 12,
    "isolate": 10,
    "restart": 5,
    "stall": 4,
    "clock": 6,
    "kill-api": 7,
    "drain-api": 2,
    "freeze-api": 2,
    "drain": 4,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a tool."""

    tool: str
    call: str
    pause: float
    """Seconds between the effect and the tool's answer."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a turn does; its message is this as JSON."""

    tag: str
    branches: tuple[Step, ...]
    work: tuple[Step, ...]
    block: float
    """Seconds for which the event loop stands."""
    words: int
    pace: float
    """Seconds before each word."""

    @property
    def message(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Turn:
    """One message, and how its client behaves."""

    job: Job
    mode: Mode
    drops: tuple[int, ...] = ()
    """A streaming client leaves after so many events, each time, and comes back."""
    follow: bool = False
    """A second client follows the run from its first event on."""
    repeat: bool = False
    """The request is sent once more, under the same key, when the run is over."""
    cancel_after: float | None = None
    """Seconds after acceptance."""
    eager: bool = False
    """The next turn does not wait for the end of this one."""

    @property
    def tag(self) -> str:
        return self.job.tag


@dataclass(frozen=True, slots=True)
class Talk:
    """A thread: turns one after the other, the first `at` seconds after the start."""

    name: str
    at: float
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """`who` in [0, 1) chooses among the processes that can be hurt; `seconds` is how long it lasts.

    `aimed`: it waits for a tool's effect and hits the worker that made it, before the tool has answered.
    """

    number: int
    at: float
    kind: Kind
    who: float
    seconds: float
    aimed: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    lease: float
    talks: tuple[Talk, ...]
    faults: tuple[Fault, ...]

    @property
    def turns(self) -> dict[str, Turn]:
        return {turn.tag: turn for talk in self.talks for turn in talk.turns}


def make(
    seed: int, *, runs: int, faults: int, lease: float, tools: Sequence[str], weights: Mapping[Kind, int] = WEIGHTS
) -> Plan:
    """The plan of `seed`: `runs` turns spread over the time that `faults` faults take, kinds chosen by `weights`."""
    dice = random.Random(seed)
    times = _times(dice, faults)
    length = times[-1] if times else runs * 0.2
    talks: list[Talk] = []
    left = runs
    while left:
        count = min(left, dice.choices((1, 2, 3, 4), (50, 25, 15, 10))[0])
        left -= count
        name = f"t{len(talks)}"
        turns = [_turn(dice, f"{name}-{number}", lease, tools) for number in range(count)]
        turns[-1] = dataclasses.replace(turns[-1], eager=False)
        talks.append(Talk(name, dice.uniform(0, length * 0.97), tuple(turns)))
    return Plan(seed, lease, tuple(sorted(talks, key=lambda talk: talk.at)), _faults(dice, times, lease, weights))


def _times(dice: random.Random, count: int) -> list[float]:
    at, found = 1.0, []
    for _ in range(count):
        at += min(dice.expovariate(1 / SECONDS_PER_FAULT), 3 * SECONDS_PER_FAULT)
        found.append(at)
    return found


def _faults(dice: random.Random, times: list[float], lease: float, weights: Mapping[Kind, int]) -> tuple[Fault, ...]:
    kinds: list[Kind] = list(weights) if len(times) >= len(weights) else []
    kinds += dice.choices(list(weights), list(weights.values()), k=len(times) - len(kinds))
    dice.shuffle(kinds)
    return tuple(
        Fault(number, at, kind, dice.random(), _seconds(dice, kind, lease), kind in AIMABLE and dice.random() < 0.5)
        for number, (at, kind) in enumerate(zip(times, kinds, strict=True))
    )


def _seconds(dice: random.Random, kind: Kind, lease: float) -> float:
    """What freezes, isolates or stalls outlasts the lease; a killed process comes back within half a second."""
    if kind in ("freeze", "freeze-api", "isolate", "stall"):
        return lease * dice.uniform(1.2, 2.5)
    if kind == "clock":
        return dice.choice((-1, 1)) * dice.uniform(60, 7200)
    return dice.uniform(0.0, 0.5)


def _turn(dice: random.Random, tag: str, lease: float, tools: Sequence[str]) -> Turn:
    def steps(prefix: str, count: int) -> tuple[Step, ...]:
        return tuple(
            Step(dice.choice(tools), f"{prefix}{number}", dice.choice((0.0, 0.05, 0.3, 0.8))) for number in range(count)
        )

    job = Job(
        tag=tag,
        branches=steps("b", dice.choice((0, 2, 3, 4))),
        work=steps("w", dice.choice((0, 1, 2, 3))),
        block=lease * 1.5 if dice.random() < 0.04 else 0.0,
        words=dice.choice((3, 10, 30)),
        pace=dice.choice((0.0, 0.01, 0.04)),
    )
    mode: Mode = dice.choice(("chat", "async", "stream", "stream"))
    drops = tuple(dice.randrange(1, 20) for _ in range(dice.choice((0, 0, 1, 2)))) if mode == "stream" else ()
    cancel = dice.uniform(0, 2.5) if dice.random() < 0.07 else None
    asks = any(step.tool == "charge" for step in (*job.branches, *job.work))
    return Turn(
        job,
        mode,
        drops=drops,
        follow=dice.random() < 0.2,
        repeat=dice.random() < 0.1,
        cancel_after=cancel,
        # A run that may ask a person holds the thread until the answer: the next turn would take the question away.
        eager=not asks and dice.random() < 0.2,
    )


def as_json(value: Any) -> str:
    return json.dumps(dataclasses.asdict(value), separators=(",", ":"))
