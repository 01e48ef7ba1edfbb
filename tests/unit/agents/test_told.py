"""What a user has told, and which questions it answers."""

from __future__ import annotations

import pytest

from app.agents.planner import KEPT_HERE, Request, default_plan
from app.agents.told import MOST_FACTS, about_user, answering, facts, relevant
from app.tools.registry import ToolRegistry

NAME, TENT = "My name is Marlene and I work in Tromsø.", "my favourite tent is the Alpine Tent."


@pytest.mark.parametrize(
    ("message", "about"),
    [
        ("What is my name?", True),
        ("Which tent is my favourite", True),
        ("When is our maintenance window?", True),
        ("Where do I work?", True),
        ("How do I register my own graph?", False),
        ("Where can I register my graph?", False),
        ("What happens to a run?", False),
        ("My name is Marlene.", False),
    ],
)
def test_a_question_about_the_user_is_told_apart(message: str, about: bool) -> None:
    """How somebody does something stands in the documents, not in what they told."""
    assert about_user(message) == about


def test_only_what_tells_something_is_a_fact() -> None:
    """A question holds the words of its answer, and pasted text holds any words."""
    said = ["Hello! " + NAME, "What is my name?", "Remember that I like tea.", "Show me my orders.", "name " * 200]
    assert facts(said) == ["Hello!", NAME, "I like tea."]


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("What is my name?", [NAME]),
        ("Where do I work?", [NAME]),
        ("Which tent is my favourite?", [TENT]),
        ("Which lamp is my favourite?", []),
        ("What is the name of the product?", []),
        ("Who am I?", []),
    ],
)
def test_a_fact_answers_when_it_holds_all_that_is_asked_for(question: str, found: list[str]) -> None:
    """Half of the words would take questions away from the documents and the data."""
    assert answering(question, [NAME, TENT]) == found


def test_a_correction_comes_first() -> None:
    """A small model is shown the first fact only."""
    told = ["Our project is called Bluefin.", "The project is called Yellowtail.", "I like tea."]
    assert relevant("What is our project called?", told, ["I have a dog"]) == [told[1], told[0]]


def test_a_question_about_everything_is_met_by_all_that_was_told() -> None:
    """It names nothing to look for; what is no fact about the user stays out."""
    assert relevant("What do you know about me?", [NAME, "It rains."], [TENT]) == [NAME, TENT]
    assert len(relevant("What do you know about me?", [f"I like {n}." for n in "abcdefgh"], [])) == MOST_FACTS


@pytest.mark.parametrize(
    ("message", "note"),
    [
        (NAME, KEPT_HERE),
        ("What is my name?", ""),
        ("Forget what I told you about my team.", "I cannot forget anything from here; DELETE /memories does."),
        ("Tell me my name.", ""),
    ],
)
def test_what_is_told_is_confirmed_and_not_looked_up(message: str, note: str) -> None:
    """ "I remember nothing about this" is no reply to somebody who gives their name."""
    assert default_plan(Request(message, "memory"), ToolRegistry()).note == note
