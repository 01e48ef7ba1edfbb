"""Rows of a query, bounded in number and size, as JSON values and as text for a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

from pydantic import JsonValue

MAX_BYTES: Final = 64_000
"""Size of all values of a result together, about; more is left out and the result says so."""
_MAX_CELL_CHARS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of a query. `truncated`: there were more rows than were allowed."""

    columns: list[str]
    rows: list[list[JsonValue]]
    truncated: bool
    tables: list[str] = field(default_factory=list)
    """Tables that were read, sorted; empty where the database does not tell."""


class RowsTooLarge(Exception):
    """One row alone is over the limit."""

    def __init__(self) -> None:
        super().__init__("a row of the result is too large: select fewer or shorter columns")


def collect(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, max_rows: int, tables: set[str] | None = None
) -> Rows:
    """The first `max_rows` of `rows`, fewer when they get too large. Reads no further than it must."""
    kept: list[list[JsonValue]] = []
    size = 0
    truncated = False
    for row in rows:
        cells = [_plain(cell) for cell in row]
        size += sum(len(str(cell)) for cell in cells)
        if len(kept) == max_rows or size > MAX_BYTES:
            if not kept:
                raise RowsTooLarge
            truncated = True
            break
        kept.append(cells)
    return Rows(list(columns), kept, truncated, sorted(tables or ()))


def _plain(cell: Any) -> JsonValue:
    """A cell as JSON has it; what is too long for a prompt is cut."""
    match cell:
        case None | bool() | int() | float():
            return cell
        case str():
            return cell if len(cell) <= _MAX_CELL_CHARS else f"{cell[:_MAX_CELL_CHARS]}…"
        case bytes() | memoryview():
            return f"<{len(cell)} bytes>"
        case Decimal() | datetime() | date() | time():
            return str(cell)
    return str(cell)[:_MAX_CELL_CHARS]


def as_text(rows: Rows) -> str:
    """A small table: the columns' names, a line per row, and how many there are."""
    lines = [" | ".join(rows.columns), *(" | ".join(_cell(cell) for cell in row) for row in rows.rows)]
    count = len(rows.rows)
    more = ", and more: narrow the query or aggregate" if rows.truncated else ""
    return "\n".join([*lines, f"({count} row{'' if count == 1 else 's'}{more})"])


def _cell(value: JsonValue) -> str:
    return "NULL" if value is None else " ".join(str(value).split())
