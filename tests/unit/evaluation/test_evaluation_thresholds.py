"""Thresholds: the real file is sound, and a share below its limit fails the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.evaluation import thresholds
from tests.evaluation.client import Reply, Transcript
from tests.evaluation.dataset import Case, Category
from tests.evaluation.results import Result, result_of
from tests.evaluation.thresholds import Threshold, Thresholds


def results(*passed: bool, error: bool = False) -> list[Result]:
    """Results of the category `documents`, right or wrong as given; one more without an answer where `error`."""
    case = Case.model_validate(
        {"id": "one", "category": "documents", "turns": [{"say": "?"}], "expect": {"all": ["yes"]}}
    )
    transcripts = [Transcript([Reply(answer="yes" if one else "no")]) for one in passed]
    return [result_of(case, one) for one in [*transcripts, *[Transcript(error="HTTP 503")] * error]]


def limits(at_least: float, **more: object) -> Thresholds:
    """Thresholds with one profile, all categories at the same limit."""
    every = {"at_least": at_least, "measured": None, "day": None}
    profile = {"models": "smollm", "categories": dict.fromkeys(Category, every), "grades": {"facts": every}, **more}
    return Thresholds.model_validate({"errors_at_most": 0, "profiles": {"bundled": profile}})


def test_the_file_is_sound_and_covers_both_kinds_of_models() -> None:
    """The bundled model has a profile of its own; every other model gets the goals for hosted ones."""
    file = thresholds.load()
    assert file.profile_for("smollm2-135m-instruct") == "bundled"
    assert file.profile_for("gpt-5-mini") == "hosted"


def test_the_bundled_models_thresholds_are_measured() -> None:
    """A number that nobody measured is a wish; `make evaluate` on a clean clone must rest on figures."""
    bundled = thresholds.load().profiles["bundled"]
    for name, one in [*bundled.categories.items(), *bundled.grades.items()]:
        assert one.measured is not None, name


@pytest.mark.parametrize(("share", "held"), [(0.75, True), (0.76, False)])
def test_a_share_is_held_against_its_limit(share: float, held: bool) -> None:
    """Three of four reach 75 % exactly."""
    checks = thresholds.check(limits(share), "bundled", results(True, True, True, False))
    documents = next(check for check in checks if check.kind == "category")
    assert (documents.passed, documents.total, documents.held) == (3, 4, held)


def test_a_case_without_an_answer_counts_against_its_category_and_apart() -> None:
    """Otherwise a service that refuses the hard questions would be the best one."""
    checks = {check.name: check for check in thresholds.check(limits(0.9), "bundled", results(True, error=True))}
    assert not checks["documents"].held
    assert not checks["facts"].held
    assert (checks["no answer"].passed, checks["no answer"].held) == (1, False)


def test_a_category_that_was_not_asked_is_not_checked() -> None:
    """With --only, the rest of the thresholds has nothing to say."""
    checks = thresholds.check(limits(1.0), "bundled", results(True))
    assert [check.name for check in checks if check.kind == "category"] == ["documents"]


def test_a_limit_above_its_measurement_is_refused() -> None:
    """It could only fail."""
    with pytest.raises(ValueError, match="can only fail"):
        Threshold.model_validate({"at_least": 0.9, "measured": 0.8, "day": "2026-11-24"})


@pytest.mark.parametrize(
    "change", [{"grades": {"fact": {"at_least": 1, "measured": None, "day": None}}}, {"categories": {}}]
)
def test_a_misspelt_grade_or_an_absent_category_is_refused(change: dict[str, object]) -> None:
    """Either would silently check nothing."""
    with pytest.raises(ValueError, match=r"no grade fact|no threshold for"):
        limits(0.5, **change)


def test_an_unknown_model_without_a_profile_is_told(tmp_path: Path) -> None:
    """The message says how to go on."""
    with pytest.raises(ValueError, match="--profile"):
        limits(0.5).profile_for("other")
    file = tmp_path / "thresholds.yaml"
    file.write_text(yaml.safe_dump({"profiles": {}}))
    with pytest.raises(ValueError, match=r"thresholds\.yaml"):
        thresholds.load(file)
