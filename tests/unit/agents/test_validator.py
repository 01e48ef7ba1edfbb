"""The grounding check, measured on labelled pairs."""

from __future__ import annotations

import pytest

from app.agents.validator import check

RUNS = (
    "A worker renews its lease every 1.7 seconds. When a worker is killed, its lease of 5 seconds ends, the run comes "
    "due again and another worker takes it over with a higher epoch. The run goes on after its last checkpoint."
)
LIMITS = "RATE_LIMIT_CALLS sets the calls per window and caller; the default is 100. The window lasts 60 seconds."
ORDERS = "| country | orders | revenue |\n| Germany | 42 | 12,345.50 |\n| France | 17 | 3,200.00 |"
STREAM = "Every event carries an id. A client that reconnects sends Last-Event-ID and gets what it missed."
RELEASES = "The weights of the releases add up to 100. A header pins a request to one release, whatever the weights."

GROUNDED = [
    ("What happens when a worker is killed?", "Its lease ends and another worker takes the run over.", RUNS),
    (
        "What happens when a worker is killed?",
        "The run continues after its last checkpoint on another worker [1].",
        RUNS,
    ),
    ("How long is a lease?", "A lease lasts 5 seconds [1].", RUNS),
    ("How do I set the rate limit?", "Set `RATE_LIMIT_CALLS`; by default it is 100 calls per 60 seconds.", LIMITS),
    ("How many orders came from Germany?", "There were 42 orders from Germany.", ORDERS),
    ("What is the revenue in Germany?", "The revenue in Germany is 12345.5.", ORDERS),
    ("Which country has more revenue?", "Germany, with 12,345.50; France has 3,200.", ORDERS),
    ("How do I resume a stream?", "Reconnect and send Last-Event-ID; you get the events that were missed.", STREAM),
    ("Can I pin a release?", "Yes: a header pins the request to one release whatever the weights are.", RELEASES),
    ("What is the port?", "The results do not say which port it is.", STREAM),
    ("Who wrote it?", "I could not find that in the documents.", RELEASES),
]
INVENTED = [
    ("How long is a lease?", "A lease lasts 30 seconds.", RUNS),
    (
        "What happens when a worker is killed?",
        "Kubernetes restarts the pod and emails the administrator.",
        RUNS,
    ),
    ("How do I set the rate limit?", "Set MAX_REQUESTS_PER_MINUTE in the file.", LIMITS),
    ("How do I set the rate limit?", "Use the rate_limiter module by Cloudflare.", LIMITS),
    ("How many orders came from Germany?", "There were 44 orders from Germany.", ORDERS),
    ("How many orders came from Italy?", "Italy had 9 orders.", ORDERS),
    ("Who is the best customer?", "The best customer is Maria Rossi.", ORDERS),
    ("How do I resume a stream?", "Streams use WebSockets and buffer messages in Kafka for a week.", STREAM),
    (
        "Can I pin a release?",
        "A header pins a request to one release. Afterwards the scheduler compiles a binary artefact in the cloud.",
        RELEASES,
    ),
    ("What do the weights mean?", "Weights are measured in kilograms and were introduced in 1998.", RELEASES),
    (
        "Which header does a client send to resume?",
        "A client sends a stream to a resume request.",
        f"{STREAM} A request.",
    ),
    ("What happens to a run when a worker is killed?", "The run is killed when a worker is killed.", RUNS),
    ("What is Slipway?", "Slipway is a company.", STREAM),
    ("What is it?", "   ", STREAM),
    ("How long is a lease?", "The answer to this question is: 5.", RUNS),
    ("How do I add a limit?", "Call the `rate_limit` function with the calls per window.", LIMITS),
    ("How do I resume?", "Every event carries an id. " * 4, STREAM),
]


@pytest.mark.parametrize(("question", "answer", "evidence"), GROUNDED)
def test_an_answer_from_the_results_passes(question: str, answer: str, evidence: str) -> None:
    """A true answer that is refused costs a retry and, at worst, ends as a bare quotation."""
    assert check(answer, [evidence], question).problems == ()


@pytest.mark.parametrize(("question", "answer", "evidence"), INVENTED)
def test_an_invention_is_refused_with_a_reason(question: str, answer: str, evidence: str) -> None:
    """The reason goes into the retry's prompt, so there must be one."""
    found = check(answer, [evidence], question)
    assert not found.grounded
    assert found.problems


def test_the_user_s_own_facts_support_an_answer() -> None:
    """ "What is my name?" has no document behind it."""
    assert check("Your name is Maria.", [], "What is my name?", known=["The user's name is Maria"]).grounded


def test_repeating_the_question_is_no_answer() -> None:
    """Small models do that, and every word would be "supported" by the question."""
    assert not check(
        "What happens to a run?", ["Completely other things stand here."], "What happens to a run?"
    ).grounded


def test_a_refusal_is_told_apart() -> None:
    """It is grounded, but worth another plan when there is one to make."""
    found = check("The documents do not mention a port.", [STREAM], "What is the port?")
    assert found.grounded
    assert found.refusal


def test_what_the_check_cannot_see_is_known() -> None:
    """A negation turns the sense and keeps the words; this is why a judge can be asked."""
    assert check("Another worker never takes the run over.", [RUNS], "Who takes it over?").grounded
