"""Chaos in short, as part of the ordinary tests; `make chaos` is the long form."""

from __future__ import annotations

from tests.chaos import campaign, plan, zombie
from tests.chaos.__main__ import LEASE_SECONDS, TOOLS

_SEED = 20261124
"""Always the same plan, so that two failures of this test can be compared; `make chaos` takes new ones."""


async def test_nothing_is_lost_or_done_twice_under_faults() -> None:
    """The promise of durable runs, kept while workers, apis and Redis are killed, frozen and cut off."""
    made = plan.make(_SEED, runs=60, faults=20, lease=LEASE_SECONDS, tools=TOOLS)
    report = await campaign.run(made, fsync="always", restart="kill", workers=3)
    told = [f"{violation}\n{report.history.tell(violation.tag)}" for violation in report.verdict.violations[:1]]
    assert report.verdict.passed, "\n".join([*map(str, report.verdict.violations), *told])
    assert report.faults == 20
    assert len(report.history.turns) == 60


async def test_a_frozen_worker_that_wakes_changes_nothing() -> None:
    """Its run has a new owner: the call was made once, and a person was asked what became of it."""
    history, verdict = await zombie.play(fence=True)
    assert verdict.passed, "\n".join([*map(str, verdict.violations), history.tell("t0-0")])
    assert verdict.figures["decisions"] == 1


async def test_without_fences_the_checker_finds_what_the_frozen_worker_did() -> None:
    """The checker is worth as much as what it would catch: here are workers that write whoever owns the run."""
    _, verdict = await zombie.play(fence=False)
    found = {violation.kind for violation in verdict.violations}
    assert {"second-effect", "two-ends", "broken-fence"} <= found, found
