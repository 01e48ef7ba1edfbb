"""The agent as a whole and in parts, over a scripted model."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from app.tools.registry import ToolRegistry
from app.workflows import graph as graph_module
from app.workflows.graph import Agent, build_graph
from tests.unit.workflows.conftest import Desk

SEARCH = json.dumps({"calls": [{"id": "a", "tool": "search_documents", "args": {"query": "lease"}}]})
GOOD = "A lease lasts 5 seconds [1]."
BAD = "A lease lasts 30 years and costs money."
CANNOT_QUERY = "I cannot answer questions about the data: scripted is too small to write database queries."
MakeDesk = Callable[..., Desk]


def agent(desk: Desk, **options: Any) -> Agent:
    return build_graph(desk.services).compile(**options)


async def ask(graph: Agent, text: str, **config: Any) -> dict[str, Any]:
    result: dict[str, Any] = await graph.ainvoke({"messages": [HumanMessage(text)]}, cast(RunnableConfig, config))
    return result


async def test_an_answer_names_its_source_model_prompt_and_usage(desk: MakeDesk) -> None:
    """This is what `/chat` shows of the run."""
    values = await ask(agent(desk(SEARCH, GOOD)), "How long is a lease?")
    answer = values["messages"][-1]
    assert answer.text == GOOD
    assert answer.response_metadata == {"model_name": "scripted", "prompt": "answer@2"}
    assert answer.usage_metadata["total_tokens"] == 10
    assert [source["uri"] for source in values["sources"]] == ["runs.md#lease"]
    assert values["verdict"]["grounded"]


async def test_a_refused_draft_is_tried_again_and_the_client_is_told(desk: MakeDesk) -> None:
    """The tokens of the first draft are on the client's screen already."""
    events: list[Any] = []
    tokens: dict[str, str] = {}
    made = desk(SEARCH, BAD, GOOD)
    graph = agent(made)
    payload: Any
    async for mode, payload in graph.astream(
        {"messages": [HumanMessage("How long is a lease?")]}, stream_mode=["custom", "messages"]
    ):
        if mode == "custom":
            events.append(payload)
        else:
            tokens[payload[0].id] = tokens.get(payload[0].id, "") + payload[0].text
    dropped = [event for event in events if event["type"] == "answer-superseded"]
    assert len(dropped) == 1
    assert "the number 30 is not in the results" in dropped[0]["reason"]
    kept = {text for id_, text in tokens.items() if id_ != dropped[0]["message_id"]}
    assert kept == {GOOD}, "neither the plan nor the refused draft may be what remains"
    assert "the number 30" in made.models.model.asked[2][-1].text, "the model must be told what was wrong"


async def test_retries_end_and_the_best_passage_is_quoted(desk: MakeDesk) -> None:
    """A model that keeps inventing must neither loop nor be believed."""
    made = desk(SEARCH, BAD, BAD, BAD)
    values = await ask(agent(made), "How long is a lease?")
    answer = values["messages"][-1]
    assert "> A worker holds a run by a lease of 5 seconds." in answer.text
    assert "(Runs, runs.md#lease)" in answer.text
    assert answer.response_metadata == {"composed": "quotation", "model_name": "scripted"}
    assert [source["uri"] for source in values["sources"]] == ["runs.md#lease"]
    assert len(made.models.model.asked) == 4, "one plan, one draft and two retries"


async def test_a_model_s_own_limit_of_retries_wins(desk: MakeDesk) -> None:
    """A small model on two cores has no time for three drafts."""
    made = desk(SEARCH, BAD, retries=0)
    values = await ask(agent(made), "How long is a lease?")
    assert values["messages"][-1].response_metadata["composed"] == "quotation"


async def test_nothing_found_is_said_without_asking_a_model(desk: MakeDesk) -> None:
    """A model without results would answer from what it was trained on."""
    made = desk(SEARCH, SEARCH)
    made.found = []
    values = await ask(agent(made), "How long is a lease?")
    assert values["messages"][-1].text == "I found nothing about this."
    assert values["sources"] == []
    assert len(made.models.model.asked) == 2, "two plans, no draft"


async def test_a_second_plan_is_told_what_the_first_gave(desk: MakeDesk) -> None:
    """Else it would be the same plan."""
    made = desk(SEARCH, SEARCH)
    made.found = []
    await ask(agent(made), "How long is a lease?")
    assert "An earlier plan did not lead to an answer" in made.models.model.asked[1][-1].text


async def test_results_that_do_not_hold_the_answer_lead_to_another_plan(desk: MakeDesk) -> None:
    """ "The documents do not say" is final only when nothing else can be tried."""
    refusal = "The results do not say this."
    values = await ask(agent(desk(SEARCH, refusal, SEARCH, GOOD)), "How long is a lease?")
    assert values["messages"][-1].text == GOOD
    assert values["plans"] == 2


async def test_a_refusal_names_no_sources(desk: MakeDesk) -> None:
    """Nothing was taken from them."""
    refusal = "The results do not say this."
    values = await ask(agent(desk(SEARCH, refusal, SEARCH, refusal)), "How high is it?")
    assert values["messages"][-1].text == refusal
    assert values["sources"] == []


async def test_smalltalk_uses_no_tools(desk: MakeDesk) -> None:
    """And is not checked against results that it does not need."""
    made = desk("Hello! What can I do for you?")
    made.classifier.intent = "smalltalk"
    values = await ask(agent(made), "Hi")
    assert values["messages"][-1].text == "Hello! What can I do for you?"
    assert made.calls == []


async def test_what_to_remember_is_remembered_and_confirmed(desk: MakeDesk) -> None:
    """Without a model call where the model cannot plan."""
    made = desk(plans=False)
    made.classifier.intent = "memory"
    values = await ask(agent(made), "Please remember that my team is called Orion.")
    assert made.calls[0][0] == "remember"
    assert made.calls[0][2] == {"text": "my team is called Orion."}
    assert values["messages"][-1].text == "Remembered: my team is called Orion."


async def test_what_was_said_in_the_thread_answers_a_question_about_the_user(desk: MakeDesk) -> None:
    """Whatever the examples take it for: no document and no table knows it."""
    made = desk("The project is called Yellowtail.", plans=False, small=True, passages=1)
    graph = agent(made, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    made.classifier.intent = "memory"
    await ask(graph, "Our project is called Bluefin.", **config)
    await ask(graph, "Correction, the project is called Yellowtail.", **config)
    made.classifier.intent = "data"
    values = await ask(graph, "What is our project called?", **config)
    assert values["messages"][-1].text == "The project is called Yellowtail."
    assert values["verdict"]["grounded"]
    shown = made.models.model.asked[0][-1].text
    assert "Yellowtail" in shown
    assert "Bluefin" not in shown, "a small model reads one fact: the one told last"


async def test_what_was_said_is_listed_where_no_draft_holds(desk: MakeDesk) -> None:
    """A small model invents, or says that it cannot know; the fact is there all the same."""
    made = desk("Your name is Tom.", "I do not know your name.", plans=False, small=True, retries=1)
    graph = agent(made, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    made.classifier.intent = "memory"
    await ask(graph, "My name is Marlene and I work in Tromsø. Thanks for asking!", **config)
    values = await ask(graph, "What is my name?", **config)
    answer = values["messages"][-1]
    assert answer.response_metadata["composed"] == "memories"
    assert answer.text.endswith("\n\n- My name is Marlene and I work in Tromsø.")


async def test_a_large_model_s_courtesy_around_a_fact_is_no_invention(desk: MakeDesk) -> None:
    """It must still not name anybody whom the user has not named."""
    plan = json.dumps({"calls": []})
    friendly = "Your name is Marlene. Is there anything else that I may help with?"
    made = desk(plan, "Nice to meet you, Marlene!", plan, "Your name is Tom.", friendly)
    graph = agent(made, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    made.classifier.intent = "memory"
    told = await ask(graph, "My name is Marlene.", **config)
    assert told["messages"][-1].text == "Nice to meet you, Marlene!"
    values = await ask(graph, "What is my name?", **config)
    assert values["messages"][-1].text == friendly


async def test_a_model_that_cannot_write_queries_says_so(desk: MakeDesk) -> None:
    """And quotes nothing that only happens to be nearest: that would look like an answer."""
    made = desk(plans=False)
    made.classifier.intent = "data"
    values = await ask(agent(made), "How many customers are there?")
    assert values["messages"][-1].text == CANNOT_QUERY
    assert values["sources"] == []


async def test_a_document_that_tells_the_figure_is_quoted_instead_of_a_query(desk: MakeDesk) -> None:
    """What was taken for a question about the data may stand in the documents."""
    made = desk(plans=False)
    made.classifier.intent = "data"
    values = await ask(agent(made), "How many seconds is a lease?")
    assert values["messages"][-1].text.startswith(f"{CANNOT_QUERY} The passage that fits best, word for word:")
    assert [source["uri"] for source in values["sources"]] == ["runs.md#lease"]


async def test_a_model_that_takes_too_long_is_cut_off(desk: MakeDesk) -> None:
    """A turn of the bundled model must end in time, on a busy machine too."""
    made = desk(GOOD, plans=False, answer_seconds=0.01, pause=5.0)
    values = await ask(agent(made), "How long is a lease?")
    assert values["messages"][-1].text.startswith("scripted did not finish an answer within 0.01 s. The passage that")


async def test_a_turn_begins_without_what_the_last_one_left(desk: MakeDesk) -> None:
    """Threads go on with the same state: old results would be sources of the new answer."""
    made = desk(SEARCH, GOOD, "You are welcome.")
    graph = agent(made, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    await ask(graph, "How long is a lease?", **config)
    made.classifier.intent = "smalltalk"
    values = await ask(graph, "Thanks!", **config)
    assert values["sources"] == []
    assert values["results"] == []
    assert values["plan"] == []
    assert [message.text for message in values["messages"]] == [
        "How long is a lease?",
        GOOD,
        "Thanks!",
        "You are welcome.",
    ]
    asked = [message.text for message in made.models.model.asked[-1]]
    assert "How long is a lease?" in asked, "the answer must see the conversation"


async def test_a_follow_up_is_searched_with_the_question_before_it(desk: MakeDesk) -> None:
    """ "And why?" alone finds nothing."""
    made = desk(GOOD, GOOD, plans=False)
    graph = agent(made, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    await ask(graph, "How long is a lease?", **config)
    await ask(graph, "And why?", **config)
    assert made.calls[1][2] == {"query": "How long is a lease? And why?"}


async def test_calls_have_their_ids_before_anything_runs(desk: MakeDesk) -> None:
    """The plan is what a takeover resumes from: an id given later would differ."""
    made = desk(SEARCH, GOOD)
    graph = agent(made, checkpointer=InMemorySaver(), interrupt_after=["plan"])
    config: Any = {"configurable": {"thread_id": "t"}}
    stopped = await ask(graph, "How long is a lease?", **config)
    assert made.calls == []
    planned = stopped["plan"][0]["id"]
    await graph.ainvoke(None, config)
    assert [call[1] for call in made.calls] == [planned]


async def test_the_second_half_runs_from_an_injected_state(desk: MakeDesk) -> None:
    """Results as the tools would have given them: only the answer is left to write."""
    made = desk("Another worker takes the run over.")
    graph = agent(made, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    passage = {"title": "Runs", "uri": "runs.md", "excerpt": "When a worker is killed, another takes the run over."}
    await graph.aupdate_state(
        config,
        {
            "messages": [HumanMessage("What if a worker is killed?")],
            "retries_left": 0,
            "results": [{"id": "1", "tool": "search_documents", "ok": True, "text": "", "passages": [passage]}],
        },
        as_node="execute",
    )
    values = await graph.ainvoke(None, config)
    assert values["messages"][-1].text == "Another worker takes the run over."
    assert values["sources"][0]["uri"] == "runs.md"


async def test_a_resumed_thread_ends_where_the_verdict_sends_it(desk: MakeDesk) -> None:
    """A worker that takes over after the verdict must not write the draft again."""
    made = desk()
    graph = agent(made, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    passage = {"title": "Runs", "uri": "runs.md", "excerpt": "A lease lasts 5 seconds."}
    await graph.aupdate_state(
        config,
        {
            "messages": [HumanMessage("How long is a lease?")],
            "draft": AIMessage(BAD),
            "verdict": {"grounded": False, "score": 0.2, "problems": ["no"], "refusal": False},
            "retries_left": -1,
            "results": [{"id": "1", "tool": "search_documents", "ok": True, "text": "", "passages": [passage]}],
        },
        as_node="validate",
    )
    values = await graph.ainvoke(None, config)
    assert "> A lease lasts 5 seconds." in values["messages"][-1].text


@pytest.mark.parametrize("difficult", [0.2, 0.9])
async def test_the_difficult_question_goes_to_the_reasoning_model(desk: MakeDesk, difficult: float) -> None:
    """It costs more, so the simple one does not."""
    made = desk(SEARCH, GOOD)
    made.classifier.complexity = difficult
    asked: list[str] = []
    made.models.registry.roles.update({"orchestrator": "scripted", "reasoner": "deep"})  # type: ignore[attr-defined]
    original = made.models.chat
    made.models.chat = lambda name, **options: asked.append(name) or original(name, **options)  # type: ignore
    await ask(agent(made), "How long is a lease?")
    assert asked == ["scripted", "deep" if difficult > 0.6 else "scripted"]


async def test_a_small_model_s_refusal_is_not_believed(desk: MakeDesk) -> None:
    """It says "the text does not say" of the very passage that says it."""
    refusal = "The text does not say how long a lease is."
    values = await ask(agent(desk(refusal, small=True, plans=False, retries=0)), "How long is a lease?")
    assert "> A worker holds a run by a lease of 5 seconds." in values["messages"][-1].text


async def test_a_small_model_s_second_draft_reads_less(desk: MakeDesk) -> None:
    """The same prompt at temperature 0 would only give the same draft again."""
    made = desk(BAD, GOOD, small=True, plans=False)
    await ask(agent(made), "How long is a lease?")
    first, second = (asked[-1].text for asked in made.models.model.asked)
    assert len(second) < len(first)


async def test_a_prompt_says_where_its_answer_ends(desk: MakeDesk) -> None:
    """A small model goes on with a next question and answers that, too."""
    made = desk(GOOD, small=True, plans=False)
    await ask(agent(made), "How long is a lease?")
    assert made.models.model.stops == [["Question:"]]


async def test_a_worker_warms_the_tools_and_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first question must not pay for indexing; what the tools have open closes with the worker."""
    steps: list[str] = []

    async def warm() -> None:
        steps.append("warm")

    async def close() -> None:
        steps.append("close")

    services = SimpleNamespace(tools=ToolRegistry(warming=[warm], closing=[close]))
    monkeypatch.setattr(graph_module, "_services", lambda: services)
    async with graph_module.graph_lifespan():
        assert steps == ["warm"]
    assert steps == ["warm", "close"]
