"""Writes what the settings classes say into `docs/configuration.md`, `README.md` and `.env.template`.

    python -m app.infra.settings_docs           write them
    python -m app.infra.settings_docs --check   exit 1 and name what is out of date

In Markdown the table stands between two marker lines; a file without markers is left alone. `.env.template` is
written as a whole. Every default and description comes from the classes: neither is typed a second time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.infra.settings import GROUPS, REPOSITORY, Group, variable

BEGIN = "<!-- settings:begin (written by `python -m app.infra.settings_docs`) -->"
END = "<!-- settings:end -->"
MARKDOWN = ("docs/configuration.md", "README.md")
TEMPLATE = ".env.template"

_NAMES = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path", SecretStr: "secret"}
_BOUNDS = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}


def type_name(field: FieldInfo) -> str:
    """What a value of the field looks like, in words, with its bounds: `whole number, ≥ 1, ≤ 500`."""
    annotation: Any = field.annotation
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    name = "JSON list" if get_origin(annotation) is tuple else _NAMES[annotation]
    bounds = [
        f"{sign} {getattr(rule, attribute)}"
        for kind, (sign, attribute) in _BOUNDS.items()
        for rule in field.metadata
        if isinstance(rule, kind)
    ]
    return ", ".join([name, *bounds])


def default_text(field: FieldInfo) -> str:
    """The default as it would stand in the environment; empty where there is none."""
    value = field.default
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()  # a default is written in the source: nothing secret about it
    if isinstance(value, Path):
        return str(value.relative_to(REPOSITORY))
    if isinstance(value, tuple):
        return "[]" if not value else "[" + ", ".join(f'"{part}"' for part in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def markdown() -> str:
    """One table per group of settings."""
    parts = []
    for group in GROUPS.values():
        rows = ["| Variable | Value | Default | Meaning |", "|---|---|---|---|"]
        for name, field in group.model_fields.items():
            default = default_text(field)
            rows.append(
                f"| `{variable(group, name)}` | {type_name(field)} | {f'`{default}`' if default else '-'} "
                f"| {field.description} |"
            )
        parts.append(f"**{_heading(group)}**\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def template() -> str:
    """The text of `.env.template`: every variable, commented out, at its default."""
    lines = [
        "# Settings of the service. Copy this file to .env and take away the # of what you change.",
        "# The environment wins over .env; with ENVIRONMENT=production no .env is read.",
        "# Written by `python -m app.infra.settings_docs`.",
    ]
    for group in GROUPS.values():
        lines += ["", f"# --- {_heading(group)}"]
        for name, field in group.model_fields.items():
            lines += [f"# {field.description}", f"#{variable(group, name)}={default_text(field)}"]
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """`text` with the table of today between its markers; unchanged when it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return text
    return f"{before}{BEGIN}\n\n{markdown()}\n\n{END}{after}"


def outdated(root: Path = REPOSITORY) -> dict[Path, str]:
    """The files that differ from what the classes say, with the text that they should have."""
    wanted = {root / TEMPLATE: template()}
    for name in MARKDOWN:
        path = root / name
        if path.exists():
            wanted[path] = with_table(path.read_text())
    return {path: text for path, text in wanted.items() if not path.exists() or path.read_text() != text}


def _heading(group: type[Group]) -> str:
    return (group.__doc__ or "").strip().splitlines()[0].rstrip(".")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.infra.settings_docs", description="Document the settings.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something is out of date")
    check = parser.parse_args(arguments).check
    stale = outdated()
    for path, text in stale.items():
        if check:
            sys.stderr.write(f"{path.name} is out of date; run: python -m app.infra.settings_docs\n")
        else:
            path.write_text(text)
            sys.stdout.write(f"wrote {path.relative_to(REPOSITORY)}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
