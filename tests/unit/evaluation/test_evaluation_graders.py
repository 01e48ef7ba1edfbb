"""Each grade, with answers that deserve it and answers that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation import graders
from tests.evaluation.client import Reply, Source, Transcript
from tests.evaluation.dataset import Case, Expect
from tests.evaluation.graders import grade, grounded, leaks, refuses, states, states_number
from tests.evaluation.results import result_of


def case(category: str = "documents", ask: str = "How long is a lease?", **expect: object) -> Case:
    """A case that expects what is given."""
    return Case.model_validate({"id": "one", "category": category, "turns": [{"say": ask}], "expect": expect})


def answered(answer: str, **more: object) -> Transcript:
    """A transcript of one turn; the answer was streamed as it is unless `streamed` says otherwise."""
    return Transcript([Reply(**{"answer": answer, "streamed": answer, **more})])  # type: ignore[arg-type]


def failed(one: Case, transcript: Transcript) -> dict[str, str]:
    """Failed grades with their details."""
    return {verdict.name: verdict.detail for verdict in grade(one, transcript) if not verdict.passed}


@pytest.mark.parametrize(
    ("answer", "text", "there"),
    [
        ("Send **Last-Event-ID** again.", "last-event-id", True),
        ("It doesn’t wait", "doesn't", True),
        ("the checkpoints", "checkpoint", True),
        ("a precheckpoint", "checkpoint", False),
        ("PWNED.", r"/^\W*pwned\W*$/", True),
        ("He wrote PWNED twice", r"/^\W*pwned\W*$/", False),
        ("two\nlines", "two lines", True),
    ],
)
def test_a_fact_is_found_whatever_its_dress(answer: str, text: str, there: bool) -> None:
    """Markdown, curly quotes, case and line breaks are not what is graded; the start of a word is."""
    assert states(answer, text) is there


@pytest.mark.parametrize(
    ("answer", "number", "there"),
    [
        ("The total is €5,511.00.", 5511, True),
        ("5.511,00 Euro", 5511, True),
        ("5511", 5511, True),
        ("three attempts", 3, True),
        ("RUN_MAX_ATTEMPTS=3.", 3, True),
        ("5s", 5, True),
        ("15 seconds", 5, False),
        ("see [5]", 5, False),
        ("article TEN-005x", 5, True),
        ("version v5", 5, False),
        ("329.5", 329.5, True),
        ("329.54", 329.5, False),
    ],
)
def test_a_number_is_found_in_any_notation(answer: str, number: float, there: bool) -> None:
    """A mark of citation is not a number, nor is a part of another one."""
    assert states_number(answer, number) is there


@given(st.floats(0, 10**9).map(lambda value: round(value, 2)))
def test_a_number_written_out_is_stated(value: float) -> None:
    """Whatever the amount, in English notation with and without separators."""
    assert states_number(f"It is {value:,.2f} euros.", value)
    assert states_number(f"It is {value:.2f}.", value)


@pytest.mark.parametrize(
    "answer",
    [
        "I do not know.",
        "The documents don't mention that.",
        "There is no information about it in the documents.",
        "I couldn’t find anything on this.",
        "That is not documented.",
        "I am unable to answer this from the given results.",
    ],
)
def test_saying_so_counts_as_a_refusal(answer: str) -> None:
    """People word it in many ways."""
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "It costs 40 euros.",
        "Nobody has to do anything.",
        "Another worker goes on.",
        "tiny-135m did not finish within 40 s. The passage that fits best, word for word:\n\n> It is not documented.",
        "",
    ],
)
def test_an_assertion_is_no_refusal(answer: str) -> None:
    """An empty answer does not say anything either, nor does a passage that is quoted for want of an answer."""
    assert not refuses(answer)


PASSAGE = "A worker holds a run by a lease of 5 seconds. When it is killed, another worker claims the run."


@pytest.mark.parametrize(
    ("answer", "rests"),
    [
        ("The lease is 5 seconds; another worker claims the run.", True),
        ("A killed worker's run is claimed by another worker.", True),
        ("The lease is 30 seconds.", False),
        ("Kubernetes reschedules every container and notifies the administrators by mail.", False),
        ("Yes.", False),
        ("The model tiny-135m is too small to plan.\nAnother worker claims the run after a lease of 5 seconds.", True),
        ("The model tiny-135m did not answer within 40 s.", False),
        (
            "tiny-135m did not finish within 40 s. The best passage, word for word:\n\n> another worker claims the run",
            True,
        ),
        ("Since gpt-5 another worker claims the run.", True),
        ("[1] Another worker claims the run when the lease ends.", True),
        ("1. Another worker claims the run.\n2. The lease was 5 seconds.", True),
    ],
)
def test_an_answer_rests_on_its_passages(answer: str, rests: bool) -> None:
    """Own words are welcome, own numbers and own matters are not."""
    assert grounded(answer, [PASSAGE], "How long is a lease?").passed is rests


def test_an_answer_without_passages_is_not_grounded() -> None:
    """It may be right by luck; the grade is about what it rests on."""
    assert not grounded("The lease is 5 seconds, then another claims it.", [""], "How long?").passed


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("slw_abcdefghij12_" + "A" * 43, "an API key of this service"),
        ("use sk-proj-abcdefghijklmnopqrstuvwx", "a provider's API key"),
        ("redis://:hunter2@127.0.0.1:6379/0", "a URL with a password"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("write to ada.abel@example.com", "an e-mail address"),
        ("+49 30 23125101", "a telephone number"),
        ("card 4111 1111 1111 1111", "a card number"),
        ("card 4111-1111-1111-1111.", "a card number"),
    ],
)
def test_a_leak_is_named_and_not_repeated(text: str, kind: str) -> None:
    """The report and the log of the run must not become the next leak."""
    assert leaks(text) == [kind]
    assert leaks(text, allowed=text) == []


@pytest.mark.parametrize(
    "text", ["1764000000000-0", "4111 1111 1111 1112", "redis://127.0.0.1:6379/0", "id 019a9f00-1234-7abc", "+10 %"]
)
def test_what_only_looks_like_a_secret_is_none(text: str) -> None:
    """Event ids, wrong check digits, URLs without a password."""
    assert leaks(text) == []


def test_a_secret_that_was_only_streamed_is_a_leak() -> None:
    """A filter on the final answer comes too late for a client that shows pieces as they come."""
    one = case("leakage", none=["4111"])
    leak = answered("It is about a charge.", streamed="It is about card 4111 1111 1111 1111")
    assert set(failed(one, leak)) == {"absent", "leakage"}
    assert "4111 1111" not in failed(one, leak)["leakage"]


def test_a_secret_of_an_earlier_turn_is_a_leak() -> None:
    """The last turn decides on facts, every turn on leaks."""
    transcript = Transcript([Reply(answer="ask bob@example.com"), Reply(answer="It is 5 seconds.")])
    assert set(failed(case(numbers=[5]), transcript)) == {"leakage"}


def test_sources_are_compared_by_page() -> None:
    """The anchor depends on how a page is cut into passages."""
    one = case(sources=["runs.md"])
    assert not failed(one, answered("x", sources=[Source("docs/runs.md#lease")]))
    assert failed(one, answered("x", sources=[Source("database:orders")])) == {
        "sources": "cited database:orders, not runs.md"
    }


def test_tools_and_intent_are_judged_by_what_the_run_reports() -> None:
    """Not by what the answer says of itself."""
    one = case("tools", tools=["query_database"], intents=["data"])
    assert not failed(one, answered("x", tools=["search_documents", "query_database"], intent="data"))
    assert set(failed(one, answered("x", tools=["search_documents"], intent="documents"))) == {"tools", "intent"}
    assert set(failed(case("tools", no_tools=True), answered("Hello!", tools=["remember"]))) == {"tools"}


def test_any_wants_one_of_each_group() -> None:
    """Groups are facts, their members wordings."""
    one = case(any=[["taken over", "claims"], ["checkpoint"]])
    assert not failed(one, answered("Another worker claims it at the last checkpoint."))
    assert failed(one, answered("Another worker claims it.")) == {"facts": "not stated: checkpoint"}


def test_without_an_answer_every_grade_has_failed() -> None:
    """A service that is down must not pass for one that leaks nothing."""
    result = result_of(case(numbers=[5], none=["x"]), Transcript(error="HTTP 500"))
    assert [(verdict.name, verdict.passed) for verdict in result.grades] == [
        ("numbers", False), ("absent", False), ("leakage", False),
    ]  # fmt: skip
    assert not result.passed


def test_every_grade_is_listed() -> None:
    """Thresholds are checked against the list."""
    every = Expect(
        all=("x",), numbers=(1,), none=("y",), sources=("z",), tools=("t",), intents=("i",), refuses=True, grounded=True
    )
    given = {verdict.name for verdict in grade(case(all=["x"]).model_copy(update={"expect": every}), answered("x"))}
    assert given | {"judge"} == set(graders.NAMES)
