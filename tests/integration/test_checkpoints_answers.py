"""An answer of a person that a worker had already used when it died."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt

from app.infra.errors import StaleEpoch
from app.infra.ids import ThreadId
from app.infra.keys import Keys
from app.infra.settings import load
from app.runs.events import EventWriter
from app.runs.execution import Execution, Outcome, Services
from app.runs.ledger import RunLedger
from app.runs.model import Claim, Status
from tests.integration.conftest import new_run
from tests.support.waiting import eventually


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def _ask(state: State) -> dict[str, Any]:
    return {"messages": [AIMessage(f"paid: {interrupt('pay 10?')}, deleted: {interrupt('delete all?')}")]}


def _graph() -> Any:
    graph = StateGraph(State)
    graph.add_node("ask", _ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph.compile()


async def test_a_yes_to_one_question_is_never_a_yes_to_the_next(
    client: Any, keys: Keys, ledger: RunLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker dies after its run has asked again and before that is in the ledger. The second one must not
    hand the same answer to the new question."""
    settings = load(env_file=None)
    services = Services(redis=client, keys=keys, settings=settings, store=None)

    async def attempt(worker: str) -> tuple[Claim, Outcome]:
        async def claims() -> list[Claim]:
            return (await ledger.claim(worker, 1)).runs

        [claim] = await eventually(claims, until=bool)

        def stale(error: StaleEpoch) -> None:
            raise AssertionError(error)

        execution = Execution(await ledger.claimed(claim), claim, _graph(), services, on_stale=stale)
        events = EventWriter(client, keys, claim, most=100, failed=lambda error: None)
        outcome = await execution.perform(events)
        await events.flush()
        events.close()
        return claim, outcome

    def asked(outcome: Outcome) -> list[Any]:
        assert outcome.status is Status.INTERRUPTED
        return [question["value"] for question in outcome.result["interrupts"]]

    async def end(claim: Claim, outcome: Outcome) -> None:
        await ledger.complete(claim, await ledger.claimed(claim), outcome.status, outcome.result)

    accepted = await ledger.accept(new_run())
    thread_id: ThreadId = (await ledger.get(accepted.run_id)).thread_id
    claim, outcome = await attempt("one")
    assert asked(outcome) == ["pay 10?"]
    await end(claim, outcome)

    await ledger.accept(replace(new_run(thread_id), input={}, command={"resume": "yes"}))
    _, outcome = await attempt("one")
    assert asked(outcome) == ["delete all?"]
    # Here worker one is gone; the lease ends, and another takes the run over.
    claim, outcome = await attempt("two")
    assert claim.again
    assert asked(outcome) == ["delete all?"]
    await end(claim, outcome)

    await ledger.accept(replace(new_run(thread_id), input={}, command={"resume": "no"}))
    _, outcome = await attempt("two")
    assert outcome.status is Status.SUCCESS
    assert outcome.result["answer"] == "paid: yes, deleted: no"
