"""The page of a report. Every text of a case or an answer is escaped: an answer may well contain markup."""

from __future__ import annotations

from datetime import datetime
from html import escape
from pathlib import Path

from tests.evaluation.client import Reply
from tests.evaluation.dataset import Category
from tests.evaluation.results import Result, figures
from tests.evaluation.thresholds import Check

_CSS = Path(__file__).with_name("page.css")
_SCRIPT = Path(__file__).with_name("page.js")


def render(url: str, profile: str, begun: datetime, seconds: float, results: list[Result], checks: list[Check]) -> str:
    """The page as one HTML document."""
    held = all(check.held for check in checks)
    found = figures(results)
    models = ", ".join(found["models"]) or "no model named"
    word = _badge(held, "all thresholds held" if held else "a threshold does not hold")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Evaluation: {found["passed"]} of {found["cases"]} passed</title>
<style>{_CSS.read_text(encoding="utf-8")}</style></head>
<body><main>
<h1>Evaluation {word}</h1>
<div class="quiet">{escape(url)}, {begun:%Y-%m-%d %H:%M} UTC, {seconds:.0f} s.
Answered by {escape(models)}; thresholds of the profile “{escape(profile)}”.</div>
<div class="tiles">{"".join(_tile(*tile) for tile in _tiles(results))}</div>
<h2>By category</h2>{_table([check for check in checks if check.kind != "grade"])}
<h2>By grade</h2>{_table([check for check in checks if check.kind == "grade"])}
<h2>Cases</h2>{_filters(results)}
{"".join(_case(result) for result in results)}
</main><script>{_SCRIPT.read_text(encoding="utf-8")}</script></body></html>
"""


def _tiles(results: list[Result]) -> list[tuple[str, str]]:
    found = figures(results)
    return [
        (f"{found['passed']} / {found['cases']}", "cases passed"),
        (str(found["errors"]), "without an answer"),
        (_seconds(found["seconds_p50"]), f"a turn, p50 (p95 {_seconds(found['seconds_p95'])})"),
        (_seconds(found["first_text_seconds_p50"]), "to the first text, p50"),
        (f"{found['input_tokens'] + found['output_tokens']:,}", f"tokens ({found['output_tokens']:,} written)"),
        ("-" if found["cost_usd"] is None else f"${found['cost_usd']:.4f}", "cost"),
    ]


def _tile(value: str, label: str) -> str:
    return f'<div class="tile"><b>{escape(value)}</b><span class="quiet">{escape(label)}</span></div>'


def _table(checks: list[Check]) -> str:
    rows = []
    for check in checks:
        errors = check.kind == "errors"
        last = "not measured yet" if check.measured is None else f"{check.measured:.0%} on {check.day}"
        rows.append(
            f"<tr><td>{escape(check.name)}</td>"
            f'<td><div class="bar{"" if check.held else " low"}"><i style="width:{check.rate:.1%}"></i>'
            f'<u style="left:calc({check.limit:.1%} - 1px)"></u></div></td>'
            f'<td class="number">{check.passed} of {check.total} ({check.rate:.0%})</td>'
            f'<td class="number">{"at most" if errors else "at least"} {check.limit:.0%}</td>'
            f'<td class="number quiet">{"" if errors else last}</td>'
            f"<td>{_badge(check.held, 'holds' if check.held else 'fails')}</td></tr>"
        )
    head = "<tr><th></th><th>share and threshold</th><th>now</th><th>threshold</th><th>set by</th><th></th></tr>"
    return f'<div class="card"><table>{head}{"".join(rows)}</table></div>'


def _filters(results: list[Result]) -> str:
    failed = sum(not result.passed for result in results)
    choices = [("all", f"all ({len(results)})"), ("failed", f"failed ({failed})")]
    choices += [
        (category, f"{category} ({count})")
        for category in Category
        if (count := sum(result.case.category is category for result in results))
    ]
    radios = [
        f'<label><input type="radio" name="filter" value="{value}"{" checked" if value == "all" else ""}>'
        f"<span>{label}</span></label>"
        for value, label in choices
    ]
    return f'<div class="filters">{"".join(radios)}</div>'


def _case(result: Result) -> str:
    case, transcript = result.case, result.transcript
    word = "error" if transcript.error else "passed" if result.passed else "failed"
    total = sum(reply.seconds for reply in transcript.replies)
    tokens = sum(reply.input_tokens + reply.output_tokens for reply in transcript.replies)
    turns = "".join(
        f'<div class="turn"><div class="say">{escape(turn.say)}</div>{_reply(reply)}</div>'
        for turn, reply in zip(case.turns, [*transcript.replies, *[None] * len(case.turns)], strict=False)
    )
    grades = "".join(
        f'<li class="{"good" if one.passed else "bad"}">{escape(": ".join(filter(None, (one.name, one.detail))))}</li>'
        for one in result.grades
    )
    error = f'<p class="bad card">{escape(transcript.error)}</p>' if transcript.error else ""
    reference = f'<div class="meta">Reference: {escape(case.reference)}</div>' if case.reference else ""
    return (
        f'<details data-category="{case.category}" data-passed="{"yes" if result.passed else "no"}">'
        f"<summary>{_badge(result.passed, word)}<span>{escape(case.turns[-1].say)}</span>"
        f'<span class="when">{case.category} · {total:.1f} s · {tokens:,} tokens</span></summary>'
        f'<div class="body">{error}{turns}<ul class="grades">{grades}</ul>'
        f'{reference}<div class="meta">{case.id}</div></div></details>'
    )


def _reply(reply: Reply | None) -> str:
    if reply is None:
        return '<div class="meta">not answered</div>'
    sources = ", ".join(escape(source.uri) for source in reply.sources) or "none"
    facts = [
        f"{reply.seconds:.1f} s",
        f"first text {_seconds(reply.first_text_seconds)}",
        f"{reply.input_tokens:,} + {reply.output_tokens:,} tokens",
        f"tools: {escape(', '.join(reply.tools)) or 'none'}",
        f"sources: {sources}",
        escape(reply.model) or "no model",
        f"run {escape(reply.run_id)}",
    ]
    return f'<div class="answer">{escape(reply.answer) or "(empty)"}</div><div class="meta">{" · ".join(facts)}</div>'


def _badge(good: bool, word: str) -> str:
    return f'<span class="verdict {"good" if good else "bad"}">{escape(word)}</span>'


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"
