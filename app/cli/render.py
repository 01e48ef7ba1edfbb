"""What commands print: columns for people, JSON for scripts, progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import orjson
import typer

from app.runs.administration.listing import MOST_LOOKED_AT, RunSummary
from app.runs.administration.removal import Removed

_PROGRESS_SECONDS = {True: 0.2, False: 5.0}
"""Pause between two lines of progress, on a terminal and elsewhere."""


def as_json(value: Any) -> None:
    """One JSON value, indented."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """Columns as wide as what stands in them; `empty` on stderr when there is no row."""
    if not rows:
        typer.echo(empty, err=True)
        return
    lines = [[plain(cell) for cell in row] for row in [[title.upper() for title in titles], *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def fields(pairs: Sequence[tuple[str, Any]]) -> None:
    """A name and a value a line; values that say nothing are left out."""
    known = [(name, plain(value)) for name, value in pairs if value not in (None, "", [])]
    width = max(len(name) for name, _ in known)
    for name, value in known:
        typer.echo(f"{name.ljust(width)}  {value}")


def plain(value: Any) -> str:
    """`value` in one line, without characters that steer a terminal: users and models have written some of it."""
    text = "-" if value in (None, "") else str(value)
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def ago(milliseconds: int | None) -> str:
    """How long ago a moment was, in one unit: 12s, 5m, 3h, 2d."""
    return "-" if milliseconds is None else span(time.time() - milliseconds / 1000)


def span(seconds: float) -> str:
    """A length of time in one unit."""
    seconds = max(0, int(seconds))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def run_rows(runs: Sequence[RunSummary]) -> tuple[list[str], list[list[Any]]]:
    """Titles and rows of a list of runs."""
    return (
        ["run", "thread", "tenant", "graph", "release", "status", "attempt", "accepted", "error"],
        [
            [
                run.run_id,
                run.thread_id,
                run.tenant,
                run.graph,
                run.release,
                run.status,
                run.attempt,
                ago(run.accepted_ms),
                run.error,
            ]
            for run in runs
        ],
    )


def note_incomplete(complete: bool) -> None:
    """Say that a list may lack something."""
    if not complete:
        typer.echo(f"only the newest {MOST_LOOKED_AT} were looked at; narrow it with --tenant", err=True)


class Progress:
    """Tells on stderr how far a deletion is, on a terminal in one line."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + _PROGRESS_SECONDS[self._terminal]
        self._shown = False

    def __call__(self, removed: Removed) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PROGRESS_SECONDS[self._terminal]
        self._shown = True
        text = f"deleted so far: {removed.threads} threads, {removed.runs} runs"
        typer.echo(f"\r{text}\x1b[K" if self._terminal else text, nl=not self._terminal, err=True)

    def end(self) -> None:
        if self._shown and self._terminal:
            typer.echo("", err=True)
