"""What a run of the evaluation must reach: `thresholds.yaml`, per model profile, per category and per grade."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, ValidationError, model_validator

from tests.evaluation.dataset import Category, Frozen
from tests.evaluation.graders import NAMES
from tests.evaluation.results import Result

FILE = Path(__file__).with_name("thresholds.yaml")


class Threshold(Frozen):
    """The least share of passes, beside the figure that it was set by."""

    at_least: float = Field(ge=0, le=1)
    measured: float | None = Field(ge=0, le=1)
    """The share when it was last measured; None where no one has measured it yet."""
    day: date | None

    @model_validator(mode="after")
    def _a_measurement_has_a_date(self) -> Self:
        if (self.measured is None) != (self.day is None):
            raise ValueError("`measured` and `day` belong together: give both, or null for both")
        if self.measured is not None and self.at_least > self.measured:
            raise ValueError(f"at_least {self.at_least} is above what was measured ({self.measured}): it can only fail")
        return self


class Profile(Frozen):
    """Thresholds for one kind of model."""

    models: str
    """Regular expression of model names; the first profile that fits the run's commonest model is used."""
    categories: dict[Category, Threshold]
    grades: dict[str, Threshold]

    @model_validator(mode="after")
    def _it_is_complete(self) -> Self:
        absent = [category for category in Category if category not in self.categories]
        if absent:
            raise ValueError(f"no threshold for {', '.join(absent)}; give each category one")
        unknown = [name for name in self.grades if name not in NAMES]
        if unknown:
            raise ValueError(f"there is no grade {', '.join(unknown)}; the grades are {', '.join(NAMES)}")
        return self


class Thresholds(Frozen):
    """The whole file."""

    errors_at_most: float = Field(ge=0, le=1)
    """The largest share of cases that may get no answer at all."""
    profiles: dict[str, Profile] = Field(min_length=1)

    def profile_for(self, model: str) -> str:
        """Name of the profile for a model. Raises ValueError when none fits."""
        for name, profile in self.profiles.items():
            if re.search(profile.models, model, re.IGNORECASE):
                return name
        raise ValueError(f"no profile of thresholds.yaml fits the model {model!r}; add one, or choose with --profile")


def load(path: Path = FILE) -> Thresholds:
    """Read the file. Raises ValueError that names it and what is wrong."""
    try:
        return Thresholds.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise ValueError(f"{path.name}: {error}") from error


@dataclass(frozen=True, slots=True)
class Check:
    """One threshold held against the run. `rate` is the share of passes, or of errors for the check of errors."""

    kind: str
    """`category`, `grade` or `errors`."""
    name: str
    passed: int
    total: int
    limit: float
    measured: float | None
    day: date | None

    @property
    def rate(self) -> float:
        return self.passed / self.total

    @property
    def held(self) -> bool:
        # A share like 3/4 against a limit written as 0.75: compare with room for the division's rounding.
        return self.rate <= self.limit + 1e-9 if self.kind == "errors" else self.rate >= self.limit - 1e-9


def check(thresholds: Thresholds, profile: str, results: list[Result]) -> list[Check]:
    """Every threshold that the run has cases for. A case without an answer has passed nothing."""
    wanted = thresholds.profiles[profile]
    failed = sum(bool(result.transcript.error) for result in results)
    checks = [Check("errors", "no answer", failed, len(results), thresholds.errors_at_most, None, None)]
    for category in Category:
        group = [result for result in results if result.case.category is category]
        if group:
            limit = wanted.categories[category]
            passed = sum(result.passed for result in group)
            checks.append(Check("category", category, passed, len(group), limit.at_least, limit.measured, limit.day))
    totals: Counter[str] = Counter()
    passes: Counter[str] = Counter()
    for result in results:
        for grade in result.grades:
            totals[grade.name] += 1
            passes[grade.name] += grade.passed
    for name in NAMES:
        if totals[name] and name in wanted.grades:
            one = wanted.grades[name]
            checks.append(Check("grade", name, passes[name], totals[name], one.at_least, one.measured, one.day))
    return checks
