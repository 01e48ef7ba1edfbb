"""Plans: what is refused, what is put right, and what stands in for a plan."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, Field

from app.agents.planner import (
    MAX_CALLS,
    Call,
    Planner,
    Request,
    WrongPlan,
    check_plan,
    default_plan,
    search_words,
    with_stable_ids,
)
from app.prompts.registry import PromptRegistry
from app.tools.registry import Risk, Tool, ToolCall, ToolRegistry, ToolResult
from tests.support.scripted_model import ScriptedModels


class Query(BaseModel):
    query: str = Field(min_length=1)


class Fact(BaseModel):
    text: str


async def nothing(given: BaseModel, call: ToolCall) -> ToolResult:
    return ToolResult(ok=True, text="")


async def tables() -> str:
    return "CREATE TABLE orders (id INTEGER)"


TOOLS = ToolRegistry(
    [
        Tool("search_documents", "Finds.", Query, nothing, Risk.LOW, idempotent=True, details=tables),
        Tool("remember", "Keeps.", Fact, nothing, Risk.LOW, idempotent=True),
    ]
)
PROMPTS = PromptRegistry.load()


def call(id_: str = "a", tool: str = "search_documents", **more: Any) -> dict[str, Any]:
    return {"id": id_, "tool": tool, "args": {"query": "x"}, **more}


def test_a_right_plan_passes_as_it_is() -> None:
    """Order and dependencies are what the executor follows."""
    calls = check_plan({"calls": [call("a"), call("b", after=["a", "a"])]}, TOOLS)
    assert calls == (
        Call("a", "search_documents", {"query": "x"}),
        Call("b", "search_documents", {"query": "x"}, ("a",)),
    )


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ([], "plan: [] is not of type 'object'"),
        ({"calls": [{"id": "a"}]}, "'tool' is a required property"),
        ({"calls": [call()] * (MAX_CALLS + 1)}, "is too long"),
        ({"calls": [call(tool="rm")]}, "there is no tool rm; use one of remember, search_documents"),
        ({"calls": [call(args={})]}, "a.args.query: Field required"),
        ({"calls": [call(args={"query": ""})]}, "a.args.query: String should have at least 1 character"),
        ({"calls": [call("a"), call("a")]}, "two calls have the id a"),
        ({"calls": [call(after=["z"])]}, "a.after: there is no call z"),
        ({"calls": [call("a", after=["b"]), call("b", after=["a"])]}, "calls wait for each other"),
        ({"calls": [call("a", after=["a"])]}, "calls wait for each other"),
    ],
)
def test_a_wrong_plan_is_refused_with_what_to_change(plan: Any, said: str) -> None:
    """The text goes back to the model; it is its only chance to do better."""
    with pytest.raises(WrongPlan) as caught:
        check_plan(plan, TOOLS)
    assert said in caught.value.text


def test_ids_are_stable_and_never_the_model_s() -> None:
    """A plan made again after a crash names the same effects; the same words in another turn name others."""
    calls = [Call("a", "remember", {"text": "x"}), Call("b", "search_documents", {"query": "y"}, ("a",))]
    first = with_stable_ids(calls, turn="m1", plan=1)
    assert first == with_stable_ids(calls, turn="m1", plan=1)
    assert first[1].after == (first[0].id,)
    others = [with_stable_ids(calls, turn="m2", plan=1), with_stable_ids(calls, turn="m1", plan=2)]
    assert len({one.id for plan in [first, *others] for one in plan}) == 6


async def test_a_plan_sees_tools_tables_history_and_memories() -> None:
    """What it does not see it can only guess."""
    models = ScriptedModels(json.dumps({"calls": []}))
    await Planner(models, PROMPTS, TOOLS).plan(
        Request("How many?", "data", history="user: about orders", memories=["The user is Max"])
    )
    system, user = (message.text for message in models.model.asked[0])
    assert "- search_documents: Finds." in system
    assert "CREATE TABLE orders" in system
    assert "user: about orders" in user
    assert "- The user is Max" in user
    assert models.model.options[0]["response_format"]["json_schema"]["name"] == "plan"


async def test_a_wrong_plan_is_put_right_once() -> None:
    """Most mistakes are slips that the error text cures."""
    models = ScriptedModels(json.dumps({"calls": [call(args={})]}), json.dumps({"calls": [call()]}))
    plan = await Planner(models, PROMPTS, TOOLS).plan(Request("q", "documents"))
    assert [one.tool for one in plan.calls] == ["search_documents"]
    assert plan.by == "scripted"
    assert "a.args.query: Field required" in models.model.asked[1][-1].text


async def test_after_two_wrong_plans_the_documents_are_searched() -> None:
    """A question is not lost because the model cannot write JSON."""
    models = ScriptedModels("Sure! I would search.", '{"calls": 3}')
    plan = await Planner(models, PROMPTS, TOOLS).plan(Request("What is a lease?", "documents"))
    assert plan.calls == (Call("a", "search_documents", {"query": "What is a lease?"}),)
    assert plan.by == "default"


@pytest.mark.parametrize("reply", ['Here: {"calls": []} Done.', '```json\n{"calls": []}\n```'])
async def test_json_is_found_in_prose(reply: str) -> None:
    """Servers without structured output wrap it."""
    models = ScriptedModels(reply, structured="prompt")
    plan = await Planner(models, PROMPTS, TOOLS).plan(Request("q", "documents"))
    assert plan.by == "scripted"
    assert models.model.options == [{}]


async def test_a_model_with_tool_calls_plans_through_one() -> None:
    """Anthropic's way to structured output."""
    models = ScriptedModels({"calls": [call()]}, structured="tools")
    plan = await Planner(models, PROMPTS, TOOLS).plan(Request("q", "documents"))
    assert plan.calls[0].tool == "search_documents"
    assert models.model.options[0]["tool_choice"] == "plan"


@pytest.mark.parametrize(("intent", "note"), [("documents", ""), ("data", "too small to write database queries")])
async def test_a_small_model_is_not_asked_to_plan(intent: str, note: str) -> None:
    """It would cost seconds and give nothing; what it cannot do is said."""
    models = ScriptedModels(plans=False)
    plan = await Planner(models, PROMPTS, TOOLS).plan(Request("How many?", intent))
    assert models.model.asked == []
    assert note in plan.note


def test_memory_that_is_off_is_said() -> None:
    """Else somebody believes that they were understood."""
    plan = default_plan(Request("Remember that I am Max", "memory"), ToolRegistry())
    assert plan.calls == ()
    assert "memory is off" in plan.note


def test_a_question_that_stands_alone_is_searched_alone() -> None:
    """The one before it would only lead astray."""
    whole = Request("How long does a worker keep its lease?", "documents", previous_question="What is a canary?")
    assert search_words(whole) == whole.question
