"""The plan of a chaos run comes from its seed alone."""

from __future__ import annotations

import pytest

from tests.chaos import plan
from tests.chaos.__main__ import LEASE_SECONDS, TOOLS


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_gives_one_plan(seed: int) -> None:
    """What a seed did can be asked for again."""
    first, again = (plan.make(seed, runs=50, faults=40, lease=LEASE_SECONDS, tools=TOOLS) for _ in range(2))
    assert first == again
    assert first != plan.make(seed + 100, runs=50, faults=40, lease=LEASE_SECONDS, tools=TOOLS)


def test_a_plan_has_what_was_asked_for() -> None:
    """So many runs and faults, each kind of fault among them, in the order of time."""
    made = plan.make(3, runs=50, faults=40, lease=LEASE_SECONDS, tools=TOOLS)
    assert len(made.turns) == sum(len(talk.turns) for talk in made.talks) == 50
    assert len(made.faults) == 40
    assert {fault.kind for fault in made.faults} == set(plan.WEIGHTS)
    assert [fault.at for fault in made.faults] == sorted(fault.at for fault in made.faults)


def test_a_freeze_outlasts_the_lease() -> None:
    """A shorter one takes nobody's run away, and tests nothing."""
    made = plan.make(4, runs=1, faults=200, lease=LEASE_SECONDS, tools=TOOLS)
    lengths = [fault.seconds for fault in made.faults if fault.kind in ("freeze", "isolate", "stall")]
    assert min(lengths) > LEASE_SECONDS


def test_only_a_run_that_asks_nobody_is_followed_at_once() -> None:
    """The next message takes the place of a question that waits for a person."""
    made = plan.make(5, runs=400, faults=40, lease=LEASE_SECONDS, tools=TOOLS)
    eager = [turn for turn in made.turns.values() if turn.eager]
    assert eager
    assert not [turn for turn in eager if any(step.tool == "charge" for step in (*turn.job.branches, *turn.job.work))]
