"""The labels: complete, pointing at pages that exist, and true of the sample database as it is now."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from app.infra.settings import REPOSITORY
from tests.evaluation import dataset
from tests.evaluation.dataset import Case, Category, is_pattern
from tests.evaluation.graders import states

CASES = dataset.load()


@pytest.fixture(scope="module")
def shop() -> Iterator[sqlite3.Connection]:
    """The sample database, in memory, with its foreign keys enforced."""
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript((REPOSITORY / "app/tools/sample.sql").read_text(encoding="utf-8"))
    yield connection
    connection.close()


def test_there_are_cases_of_every_category() -> None:
    """A category with two cases measures luck."""
    counts = Counter(case.category for case in CASES)
    assert len(CASES) >= 40
    assert {category: counts[category] for category in Category if counts[category] < 5} == {}


@pytest.mark.parametrize("page", sorted({page for case in CASES for page in case.expect.sources}))
def test_an_expected_page_exists(page: str) -> None:
    """A renamed page would make its cases fail for a reason that is not the service's."""
    assert (REPOSITORY / "docs" / page).is_file()


@pytest.mark.parametrize("case", [case for case in CASES if case.truth], ids=lambda case: case.id)
def test_a_label_is_what_the_database_says(case: Case, shop: sqlite3.Connection) -> None:
    """The SELECT beside the label is the authority: both ways, nothing more and nothing less is expected."""
    values = [value for row in shop.execute(case.truth).fetchall() for value in row]
    assert values, "the SELECT gives nothing"
    numbers = sorted(round(float(value), 2) for value in values if not isinstance(value, str))
    assert numbers == sorted(case.expect.numbers)
    assert sorted(value for value in values if isinstance(value, str)) == sorted(case.expect.all)


def test_a_first_place_is_not_shared(shop: sqlite3.Connection) -> None:
    """`LIMIT 1` hides a tie: two right answers, of which only one would count."""
    for case in CASES:
        if case.truth.endswith("LIMIT 1"):
            first, second = shop.execute(case.truth.removesuffix("LIMIT 1") + "LIMIT 2").fetchall()
            assert first[-1] != second[-1], case.id


def test_the_sample_database_has_what_the_page_says(shop: sqlite3.Connection) -> None:
    """Its size is told to readers of the documentation and to authors of cases."""
    tables = {"customers": 40, "products": 25, "orders": 120, "support_tickets": 40}
    for table, rows in tables.items():
        assert shop.execute(f"SELECT count(*) FROM {table}").fetchone() == (rows,)
    assert shop.execute("PRAGMA foreign_key_check").fetchall() == []


def test_sqlite_keeps_the_tables_comments(shop: sqlite3.Connection) -> None:
    """The planner learns the meaning of columns from them; outside the parentheses SQLite would drop them."""
    for table, statement in shop.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
        assert "-- " in statement, table


def test_every_person_of_the_sample_is_made_up(shop: sqlite3.Connection) -> None:
    """Addresses and numbers lie where they can never belong to anybody (RFC 2606; Bundesnetzagentur 148/2021)."""
    for email, phone in shop.execute("SELECT email, phone FROM customers"):
        assert email.endswith("@example.com")
        assert phone.startswith("+49 30 23125")


def test_prompts_hold_what_the_answer_must_not_repeat() -> None:
    """The case that asks for the prompt would otherwise pass once the prompt is reworded."""
    prompts = " ".join(
        " ".join(path.read_text(encoding="utf-8").split()) for path in (REPOSITORY / "app/prompts").glob("*.yaml")
    )
    case = next(case for case in CASES if case.id == "reveal-prompt")
    assert [text for text in case.expect.none if not is_pattern(text) and states(prompts, text)]


def test_no_graded_intent_was_an_example_of_the_classifier() -> None:
    """A message that the classifier was given with its answer says nothing of how well it classifies."""
    intents = yaml.safe_load((REPOSITORY / "app/agents/intents.yaml").read_text(encoding="utf-8"))
    examples = {example.lower() for intent in intents.values() for example in intent["examples"]}
    asked = {case.turns[-1].say.lower() for case in CASES if case.expect.intents}
    assert asked & examples == set()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"category": "documents", "cases": [{"id": "a", "ask": "?", "expect": {}}]}, "expects nothing"),
        ({"category": "database", "cases": [{"id": "a", "ask": "?", "expect": {"numbers": [1]}}]}, "truth"),
        ({"category": "documents", "cases": [{"id": "a", "ask": "?", "expect": {"al": ["x"]}}]}, "al"),
        ({"category": "documents", "cases": [{"id": "A b", "ask": "?", "expect": {"all": ["x"]}}]}, "id"),
        (
            {"category": "refusal", "cases": [{"id": "a", "ask": "?", "expect": {"none": ["/(/"]}}]},
            "regular expression",
        ),
        ({"category": "tools", "cases": [{"id": "a", "ask": "?", "turns": [], "expect": {"all": ["x"]}}]}, "not both"),
        ({"cases": []}, "category"),
    ],
)
def test_a_case_that_cannot_be_right_is_refused(tmp_path: Path, content: object, told: str) -> None:
    """The message names the file and what is wrong: labels are written by people."""
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=told) as caught:
        dataset.load([file])
    assert "wrong.yaml" in str(caught.value)


def test_two_cases_of_one_id_are_refused(tmp_path: Path) -> None:
    """Reports are compared by id."""
    file = tmp_path / "twice.yaml"
    case = {"id": "a", "ask": "?", "expect": {"all": ["x"]}}
    file.write_text(yaml.safe_dump({"category": "documents", "cases": [case, case]}))
    with pytest.raises(ValueError, match="two cases"):
        dataset.load([file])
