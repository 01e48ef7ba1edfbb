"""What a run of the evaluation gave: a result per case, and the figures over all of them."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.evaluation.client import Transcript
from tests.evaluation.dataset import Case
from tests.evaluation.graders import Grade, grade


@dataclass(frozen=True, slots=True)
class Result:
    """A case, what was answered, and the verdicts."""

    case: Case
    transcript: Transcript
    grades: tuple[Grade, ...]

    @property
    def passed(self) -> bool:
        """Answered, and every grade holds. The judge's opinion has a threshold of its own and does not count here."""
        return not self.transcript.error and all(one.passed for one in self.grades if one.name != "judge")


def result_of(case: Case, transcript: Transcript) -> Result:
    """The result of a case. Without an answer every grade that the case asks for has failed."""
    grades = grade(case, transcript)
    if transcript.error:
        grades = [Grade(one.name, False, "no answer") for one in grades]
    return Result(case, transcript, tuple(grades))


def commonest_model(results: list[Result]) -> str:
    """The model that wrote most of the answers; "" when no answer names one."""
    models = Counter(reply.model for result in results for reply in result.transcript.replies if reply.model)
    return models.most_common(1)[0][0] if models else ""


def figures(results: list[Result]) -> dict[str, Any]:
    """Latencies in seconds, tokens and cost over all turns; None where nothing was measured."""
    replies = [reply for result in results for reply in result.transcript.replies]
    first = [reply.first_text_seconds for reply in replies if reply.first_text_seconds is not None]
    costs = [reply.cost_usd for reply in replies if reply.cost_usd is not None]
    return {
        "cases": len(results),
        "passed": sum(result.passed for result in results),
        "errors": sum(bool(result.transcript.error) for result in results),
        "turns": len(replies),
        "seconds_p50": quantile([reply.seconds for reply in replies], 0.5),
        "seconds_p95": quantile([reply.seconds for reply in replies], 0.95),
        "first_text_seconds_p50": quantile(first, 0.5),
        "input_tokens": sum(reply.input_tokens for reply in replies),
        "output_tokens": sum(reply.output_tokens for reply in replies),
        "cost_usd": sum(costs) if costs else None,
        "models": sorted({reply.model for reply in replies if reply.model}),
        "releases": sorted({reply.release for reply in replies if reply.release}),
    }


def quantile(values: list[float], share: float) -> float | None:
    """The value below which `share` of them lie (nearest rank interpolated); None of no values."""
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]
