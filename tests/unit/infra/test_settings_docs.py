"""What is written about settings is what the classes say."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from app.infra import settings_docs
from app.infra.settings import GROUPS, REPOSITORY, Group, load, variable


def test_the_documentation_of_settings_is_current() -> None:
    """Both files are written by `python -m app.infra.settings_docs`; after a change of a class, run it."""
    assert [path.name for path in settings_docs.outdated()] == []


def test_the_check_names_the_file_and_the_command(tmp_path: Path) -> None:
    """A file of another repository state is out of date, one without markers is left alone."""
    page = tmp_path / "docs" / "configuration.md"
    page.parent.mkdir()
    page.write_text(f"before\n{settings_docs.BEGIN}\nold\n{settings_docs.END}\nafter\n")
    (tmp_path / "README.md").write_text("no table here\n")
    stale = settings_docs.outdated(tmp_path)
    assert {path.name for path in stale} == {"configuration.md", ".env.template"}
    assert stale[page].startswith("before\n")
    assert stale[page].endswith("\nafter\n")
    page.write_text(stale[page])
    assert page not in settings_docs.outdated(tmp_path)


def test_every_variable_stands_in_both() -> None:
    """Once each: a variable of two groups would be two settings of one name."""
    template, table = settings_docs.template(), settings_docs.markdown()
    for group in GROUPS.values():
        for name in group.model_fields:
            assert template.count(f"\n#{variable(group, name)}=") == 1
            assert table.count(f"| `{variable(group, name)}` |") == 1


def test_the_template_uncommented_gives_the_defaults(tmp_path: Path, monkeypatch: object) -> None:
    """What is written there is a value that the service takes, and takes for the same as nothing."""
    lines = [line.removeprefix("#") for line in settings_docs.template().splitlines() if not line.startswith("# ")]
    file = tmp_path / ".env"
    file.write_text(
        "\n".join(lines)
        .replace("=langgraph.json", f"={REPOSITORY}/langgraph.json")
        .replace("=docs", f"={REPOSITORY}/docs")
    )
    assert load(file) == load(None)


def test_bounds_and_choices_are_told() -> None:
    """A reader learns the limits before the start refuses a value."""

    class One(Group):
        count: int = Field(3, ge=1, le=9)

    assert settings_docs.type_name(One.model_fields["count"]) == "whole number, ≥ 1, ≤ 9"
    environment = GROUPS["service"].model_fields["environment"]
    assert settings_docs.type_name(environment) == "`development` or `production`"
