"""The report of a run: `report.json` for programs, `report.html` to look at (one file, nothing fetched)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.evaluation import page
from tests.evaluation.client import Reply, Source, Transcript
from tests.evaluation.dataset import Case
from tests.evaluation.results import Result, figures, result_of
from tests.evaluation.thresholds import Check


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a report says."""

    url: str
    profile: str
    begun: datetime
    seconds: float
    results: list[Result]
    checks: list[Check]

    @property
    def held(self) -> bool:
        """Whether every threshold held."""
        return all(check.held for check in self.checks)


def as_json(run: Run) -> dict[str, Any]:
    """The report as JSON values. Leaked secrets stand in the answers, as they were given: keep it as you keep logs."""
    return {
        "service": run.url,
        "profile": run.profile,
        "begun_at": run.begun.isoformat(timespec="seconds"),
        "seconds": round(run.seconds, 1),
        "held": run.held,
        "figures": figures(run.results),
        "checks": [
            {**asdict(check), "day": check.day and check.day.isoformat(), "rate": check.rate, "held": check.held}
            for check in run.checks
        ],
        "cases": [
            {
                "id": result.case.id,
                "category": result.case.category,
                "passed": result.passed,
                "error": result.transcript.error,
                "questions": [turn.say for turn in result.case.turns],
                "reference": result.case.reference,
                "grades": [asdict(grade) for grade in result.grades],
                "replies": [asdict(reply) for reply in result.transcript.replies],
            }
            for result in run.results
        ],
    }


def write(run: Run, folder: Path) -> Path:
    """Write both files into `folder`, making it where it is missing; the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(as_json(run), indent=1, ensure_ascii=False), encoding="utf-8")
    html = folder / "report.html"
    html.write_text(
        page.render(run.url, run.profile, run.begun, run.seconds, run.results, run.checks), encoding="utf-8"
    )
    return html


def answers(path: Path, cases: list[Case]) -> tuple[str, list[Result]]:
    """Service and results of an earlier report, graded by the rules of today. Raises ValueError for another file.

    Cases that the report has no answer for are left out; the judge's opinions are not carried over.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        given = {
            one["id"]: Transcript(
                [
                    Reply(**{**reply, "sources": [Source(**source) for source in reply["sources"]]})
                    for reply in one["replies"]
                ],
                one["error"],
            )
            for one in content["cases"]
        }
        return content["service"], [result_of(case, given[case.id]) for case in cases if case.id in given]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no report of this evaluation ({type(error).__name__})") from error


def verdict(result: Result) -> str:
    """One line on a case: `ok documents/killed  2.1 s`, `FAIL …: facts (not stated: lease)`."""
    name = f"{result.case.category}/{result.case.id}"
    if result.transcript.error:
        return f"ERROR {name}: {result.transcript.error}"
    seconds = sum(reply.seconds for reply in result.transcript.replies)
    failed = "; ".join(f"{grade.name} ({grade.detail})" for grade in result.grades if not grade.passed)
    return f"FAIL  {name}  {seconds:.1f} s: {failed}" if failed else f"ok    {name}  {seconds:.1f} s"


def summary(run: Run) -> str:
    """A table of the thresholds, for the terminal."""
    lines = [f"{'':5} {'':9} {'':12} {'passed':>9} {'share':>6} {'limit':>6}"]
    for check in run.checks:
        sign = "≤" if check.kind == "errors" else "≥"
        lines.append(
            f"{'ok' if check.held else 'FAIL':5} {check.kind:9} {check.name:12} {check.passed:>4}/{check.total:<4} "
            f"{check.rate:>6.0%} {sign}{check.limit:>5.0%}"
        )
    found = figures(run.results)
    latency = "no turn was answered"
    if found["seconds_p50"] is not None:
        latency = f"turn p50 {found['seconds_p50']:.1f} s, p95 {found['seconds_p95']:.1f} s"
    lines.append(
        f"{found['passed']} of {found['cases']} cases passed, {found['errors']} without an answer; {latency}; "
        f"models: {', '.join(found['models']) or 'none named'}; thresholds: {run.profile}"
    )
    return "\n".join(lines)
