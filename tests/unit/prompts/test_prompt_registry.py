"""The registry of prompts: versions, variables, and what stops the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from app.infra.errors import ConfigurationError
from app.prompts.registry import PromptRegistry

GREET = """\
id: greet
description: Says hello.
latest: 3
versions:
  1:
    changelog: First.
    variables: [name]
    user: Hello {{name}}
  3:
    changelog: Says who speaks.
    variables: [name]
    system: You are polite.
    user: "Good day, {{ name }}"
    model: gpt-4o
    temperature: 0.3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "greet.yaml").write_text(GREET)
    return tmp_path


def test_latest_is_what_the_file_says(folder: Path) -> None:
    """And it brings its model and temperature along."""
    prompt = PromptRegistry.load("latest", folder).get("greet")
    assert (prompt.name, prompt.model, prompt.temperature) == ("greet@3", "gpt-4o", 0.3)
    assert prompt.messages(name="Ann") == [SystemMessage("You are polite."), HumanMessage("Good day, Ann")]


@pytest.mark.parametrize(("version", "name"), [("1", "greet@1"), ("3", "greet@3")])
def test_a_number_picks_a_version(folder: Path, version: str, name: str) -> None:
    """This is how a release takes a prompt back."""
    assert PromptRegistry.load(version, folder).get("greet").name == name


def test_a_prompt_that_did_not_change_stays_at_its_newest_older_version(folder: Path) -> None:
    """Version 2 of another prompt must not need a version 2 of each."""
    (folder / "other.yaml").write_text(
        "id: other\ndescription: d\nlatest: 2\nversions:\n  2: {changelog: c, user: hello}\n"
    )
    registry = PromptRegistry.load("2", folder)
    assert registry.get("greet").name == "greet@1"
    assert registry.get("other").name == "other@2"


@pytest.mark.parametrize(
    ("version", "said"), [("7", r"PROMPT_VERSION=7: no prompt .*use latest or one of 1, 3"), ("new", "not a version")]
)
def test_a_version_that_nobody_has_stops_the_start(folder: Path, version: str, said: str) -> None:
    """A typing error must not quietly mean the newest."""
    with pytest.raises(ConfigurationError, match=said):
        PromptRegistry.load(version, folder)


@pytest.mark.parametrize(
    ("values", "said"), [({}, "greet@3: missing name"), ({"name": "a", "age": "3"}, "greet@3: has no variable age")]
)
def test_a_missing_or_unknown_variable_is_an_error(folder: Path, values: dict[str, str], said: str) -> None:
    """A prompt with a hole in it would still get an answer, of some kind."""
    with pytest.raises(ValueError, match=said):
        PromptRegistry.load("latest", folder).get("greet").messages(**values)


def test_a_value_is_not_filled_in_again(folder: Path) -> None:
    """A user may write {{name}}; a document may hold it."""
    prompt = PromptRegistry.load("latest", folder).get("greet")
    assert prompt.messages(name="{{name}}")[1].content == "Good day, {{name}}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("latest: 3", "latest: 2", r"greet\.yaml:3: latest: there is no version 2"),
        ("id: greet", "id: great", r"greet\.yaml:1: id: must be greet"),
        ("Hello {{name}}", "Hello {{nme}}", r"greet\.yaml:7: versions\.1\.variables: .*\{\{nme\}\}.*not declared"),
        ("variables: [name]\n    user", "variables: [name, age]\n    user", r"greet\.yaml:7: .*age is declared, but"),
        ("    changelog: First.\n", "", r"greet\.yaml:5: versions\.1\.changelog: Field required"),
        ("temperature: 0.3", "temperature: 9", r"greet\.yaml:15: versions\.3\.temperature: .*less than or equal to 2"),
        ("temperature: 0.3", "temprature: 0.3", r"greet\.yaml:15: versions\.3\.temprature: Extra inputs"),
        ("latest: 3", "latest: [3", r"greet\.yaml:\d+: not valid YAML"),
    ],
)
def test_a_wrong_file_names_file_and_line(folder: Path, old: str, new: str, said: str) -> None:
    """Prompts are written by people who do not read our code."""
    assert old in GREET
    (folder / "greet.yaml").write_text(GREET.replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=said):
        PromptRegistry.load("latest", folder)


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    """Not one start per mistake."""
    (folder / "greet.yaml").write_text("id: greet")
    (folder / "other.yaml").write_text("id: x\ndescription: d\nlatest: 1\nversions:\n  1: {changelog: c, user: u}\n")
    with pytest.raises(ConfigurationError) as caught:
        PromptRegistry.load("latest", folder)
    assert "greet.yaml" in str(caught.value)
    assert "other.yaml" in str(caught.value)


def test_an_unknown_prompt_names_the_known_ones(folder: Path) -> None:
    """A prompt that was renamed."""
    with pytest.raises(ConfigurationError, match=r"no prompt farewell; use one of greet"):
        PromptRegistry.load("latest", folder).get("farewell")


@pytest.mark.parametrize("version", ["1", "2", "latest"])
def test_our_own_prompts_can_be_used_in_each_version(version: str) -> None:
    """A canary may differ from stable by nothing but this."""
    registry = PromptRegistry.load(version)
    for name in ("answer", "answer-small", "converse", "converse-small", "plan", "classify", "judge"):
        assert registry.get(name).content.changelog
    assert PromptRegistry.load("1").get("answer").name != PromptRegistry.load("2").get("answer").name
