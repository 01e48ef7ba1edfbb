"""What `python -m tests.chaos` says in the end: the verdict as the last line, an exit code, what failed and how."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import __main__ as chaos
from tests.chaos import campaign
from tests.chaos.checker import Verdict, Violation
from tests.chaos.history import History, Reply, TurnHistory
from tests.chaos.plan import Plan


def report(plan: Plan, *violations: Violation) -> campaign.Report:
    """A campaign that carried `plan` out: each first request was answered."""
    history = History(plan)
    for talk in plan.talks:
        turn = talk.turns[0]
        found = TurnHistory(turn, talk.name, "key", runs=[f"run-of-{turn.tag}"])
        found.replies.append(Reply(1.5, "POST first /chat", 0, 200, found.runs[0]))
        history.turns[turn.tag] = found
    return campaign.Report(history, Verdict(list(violations)), len(plan.faults), {"kill": 1}, 1.0, {"api0.log": "said"})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command over campaigns that `outcome` makes of their plans; its exit code and lines."""

    def run(outcome: Any) -> tuple[int, list[str]]:
        async def carry_out(plan: Plan, **_: Any) -> campaign.Report:
            found: campaign.Report = outcome(plan)
            return found

        monkeypatch.setattr(campaign, "run", carry_out)
        arguments = ["--runs", "8", "--faults", "6", "--seed", "4", "--reports", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["chaos", *arguments])
        return chaos.main(), capsys.readouterr().out.splitlines()

    return run


def test_a_good_run_passes_with_its_seed_in_the_last_line(told: Any) -> None:
    """Scripts read the last line; whoever wants to see it again needs the seed."""
    code, lines = told(report)
    assert code == 0
    assert lines[-1].startswith("chaos: PASS ")
    assert "seed=4 lost=0 second_effects=0" in lines[-1]


def test_a_violation_fails_and_tells_its_history(told: Any, tmp_path: Path) -> None:
    """Somebody must find the cause without having seen it."""
    code, lines = told(lambda plan: report(plan, Violation("lost", plan.talks[0].turns[0].tag, "it never ended")))
    assert code == 1
    assert lines[-1].startswith("chaos: FAIL ")
    assert "lost=2" in lines[-1], "one in each of the two parts that may lose nothing"
    assert any("POST first /chat -> 200" in line for line in lines)
    assert (tmp_path / "4-1" / "api0.log").read_text() == "said"
    assert (tmp_path / "4-1" / "plan.json").exists()


def test_what_a_crash_under_everysec_loses_is_told_and_a_broken_fence_refused(told: Any) -> None:
    """The third part may lose its last second, and nothing may be written by a worker that lost its run."""
    small = 1  # runs of the third part of so small a run

    def third(plan: Plan, kind: str) -> campaign.Report:
        if len(plan.turns) > small:
            return report(plan)
        return report(plan, Violation(kind, plan.talks[0].turns[0].tag, "as made up"))

    code, lines = told(lambda plan: third(plan, "lost"))
    assert code == 0
    assert any("lost or different: lost=1" in line for line in lines)
    code, lines = told(lambda plan: third(plan, "broken-fence"))
    assert code == 1
    assert lines[-1].startswith("chaos: FAIL ")


def test_a_run_that_cannot_be_judged_fails(told: Any) -> None:
    """A process that does not come back says nothing good of the service."""

    def gives_up(plan: Plan) -> campaign.Report:
        raise RuntimeError("worker1 ended while starting")

    code, lines = told(gives_up)
    assert code == 1
    assert lines[-1].startswith("chaos: FAIL ")
    assert any("worker1 ended while starting" in line for line in lines)
