"""The cases: YAML files in `datasets/`, one per category, read into frozen models that refuse what they do not know."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

DATASETS = Path(__file__).with_name("datasets")
Text = Annotated[str, Field(min_length=1)]


class Category(StrEnum):
    """What a case is about; each file of `datasets/` holds one."""

    DOCUMENTS = "documents"
    """Answerable from docs/: right facts, from the right page, saying nothing that the page does not say."""
    DATABASE = "database"
    """Answerable from the sample database: the right figures."""
    TOOLS = "tools"
    """Which tool is called; small talk and general questions call none."""
    REFUSAL = "refusal"
    """Neither source has it: the answer says so instead of making something up."""
    INJECTION = "injection"
    """Somebody other than the operator gives orders, in the question or in the data."""
    LEAKAGE = "leakage"
    """Secrets and personal data that the answer, and the stream, must not hold."""
    MEMORY = "memory"
    """Earlier turns of a thread, and what a user asked to be remembered."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Turn(Frozen):
    """One message. Turns of a case share a thread until one begins a new one."""

    say: Text
    thread: Literal["same", "new"] = "same"
    user: Literal["first", "other"] = "first"
    """Who says it: every case has two end users of its own, whom nobody else shares."""


class Expect(Frozen):
    """What must hold of the last turn. A text between slashes is a regular expression; case never counts."""

    all: tuple[Text, ...] = ()
    """Facts that the answer must state, all of them."""
    any: tuple[tuple[Text, ...], ...] = ()
    """Groups of wordings; one of each group must occur."""
    none: tuple[Text, ...] = ()
    """What must not occur, in the answer or in the streamed text."""
    numbers: tuple[float, ...] = ()
    """Numbers that the answer must state, as digits (`1,234.50`) or, up to twelve, in words."""
    sources: tuple[Text, ...] = ()
    """Pages of docs/ of which one must be among the sources."""
    tools: tuple[Text, ...] = ()
    """Tools of which one must have been called."""
    intents: tuple[Text, ...] = ()
    """What the message may be taken for, one of them."""
    no_tools: bool = False
    """No tool at all may have been called."""
    refuses: bool = False
    """The answer must say that it does not know."""
    grounded: bool = False
    """Each statement must rest on the cited passages (see `graders.grounded`)."""

    @model_validator(mode="after")
    def _the_patterns_can_be_read(self) -> Self:
        for text in (*self.all, *self.none, *(option for group in self.any for option in group)):
            if is_pattern(text):
                try:
                    re.compile(text[1:-1])
                except re.error as error:
                    raise ValueError(f"{text} is no regular expression: {error}") from error
        return self


class Case(Frozen):
    """One labelled question."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    category: Category
    turns: tuple[Turn, ...] = Field(min_length=1)
    expect: Expect
    truth: str = ""
    """For a case about the database: one SELECT whose every value must be stated in `expect`. A test runs it."""
    reference: str = ""
    """A right answer in a sentence, for the judge and for whoever reads the report."""

    @model_validator(mode="after")
    def _something_is_expected(self) -> Self:
        if self.expect == Expect() and self.category is not Category.LEAKAGE:
            raise ValueError(f"{self.id} expects nothing; a case that cannot fail is no case")
        if self.category is Category.DATABASE and not self.truth:
            raise ValueError(f"{self.id} needs `truth`, the SELECT that its label comes from")
        return self


def is_pattern(text: str) -> bool:
    """Whether an expected text is a regular expression: `/…/`."""
    return len(text) > 2 and text.startswith("/") and text.endswith("/")


def load(paths: list[Path] | None = None) -> list[Case]:
    """All cases of the files, or of `datasets/`. Raises ValueError that names the file, the case and the fix.

    A file is a mapping: `category`, and `cases`, each with `ask` (one message) or `turns`.
    """
    cases: list[Case] = []
    for path in paths or sorted(DATASETS.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or set(content) != {"category", "cases"}:
            raise ValueError(f"{path.name}: must be a mapping with `category` and `cases`")
        for number, raw in enumerate(content["cases"], 1):
            name = raw.get("id", f"case {number}") if isinstance(raw, dict) else f"case {number}"
            try:
                cases.append(_case(raw, content["category"]))
            except (ValidationError, TypeError, ValueError) as error:
                raise ValueError(f"{path.name}: {name}: {error}") from error
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise ValueError(f"two cases have the id {case.id}; rename one")
        seen.add(case.id)
    if not cases:
        raise ValueError("there is no case in the data set")
    return cases


def _case(raw: dict[str, object], category: str) -> Case:
    given = dict(raw)
    if "ask" in given:
        if "turns" in given:
            raise ValueError("give `ask` or `turns`, not both")
        given["turns"] = [{"say": given.pop("ask")}]
    return Case.model_validate({**given, "category": category})
