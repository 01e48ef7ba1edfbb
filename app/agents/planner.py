"""Plans the tool calls that a question needs: by a model as JSON, or by the intent where the model is too small.

A plan is checked before anything runs: against its JSON schema, against each tool's own arguments, and that its
`after` names calls of the plan and makes no circle. A wrong plan goes back to the model once, with what is wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any

import jsonschema
from pydantic import ValidationError

from app.agents.classifier import asks_to_remember, what_to_remember
from app.agents.text import content_words
from app.agents.told import tells, wants_forgotten
from app.infra.errors import SlipwayError
from app.infra.logging import get_logger
from app.models.clients import ChatModels, UnusableOutput, structured
from app.models.registry import Role
from app.prompts.registry import PromptRegistry
from app.tools.registry import ToolRegistry

_log = get_logger(__name__)

MAX_CALLS = 6
"""Calls of one plan. More is a model going astray."""

SEARCH, REMEMBER, HTTP = "search_documents", "remember", "http_get"
"""Names of the built-in tools that default plans look for."""

DEFAULT = "default"
"""Who made a plan that no model made."""

KEPT_HERE = 'Noted for this conversation. To have it remembered beyond, begin with "Remember that".'

PLAN_SCHEMA: dict[str, Any] = {
    "title": "plan",
    "description": "The tool calls that the question needs; an empty list when no tool can help.",
    "type": "object",
    "properties": {
        "calls": {
            "type": "array",
            "maxItems": MAX_CALLS,
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "minLength": 1, "maxLength": 40},
                    "tool": {"type": "string"},
                    "args": {"type": "object"},
                    "after": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["id", "tool", "args"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["calls"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One planned call. `after` holds ids of calls that must have ended before it runs."""

    id: str
    tool: str
    args: dict[str, Any]
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """`by` is the model that planned, or `default`; `note` is for the user, such as what this model cannot do."""

    calls: tuple[Call, ...]
    by: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What a plan is made for."""

    question: str
    intent: str
    previous_question: str = ""
    """The user's message before this one, for questions such as "and how long?"."""
    history: str = ""
    memories: Sequence[str] = ()
    problem: str = ""
    """What was wrong with the plan or the results before, when this is another try."""


class WrongPlan(SlipwayError):
    """The plan cannot be run; the text says why, for the model to put it right."""


def check_plan(content: Any, tools: ToolRegistry) -> tuple[Call, ...]:
    """The calls of a plan that a model wrote. Raises `WrongPlan` with all that is wrong."""
    problems = [
        f"{'.'.join(str(part) for part in error.absolute_path) or 'plan'}: {error.message}"
        for error in jsonschema.Draft202012Validator(PLAN_SCHEMA).iter_errors(content)
    ]
    if problems:
        raise WrongPlan("; ".join(problems))
    calls = tuple(
        Call(call["id"], call["tool"], call["args"], tuple(dict.fromkeys(call.get("after", ()))))
        for call in content["calls"]
    )
    ids = [call.id for call in calls]
    problems += [f"two calls have the id {id_}" for id_ in sorted({id_ for id_ in ids if ids.count(id_) > 1})]
    for call in calls:
        tool = tools.get(call.tool)
        if tool is None:
            problems.append(f"{call.id}: there is no tool {call.tool}; use one of {', '.join(tools.names())}")
        else:
            try:
                tool.arguments.model_validate(call.args)
            except ValidationError as error:
                problems += [
                    f"{call.id}.args.{'.'.join(str(part) for part in wrong['loc'])}: {wrong['msg']}"
                    for wrong in error.errors(include_url=False, include_input=False)
                ]
        problems += [f"{call.id}.after: there is no call {id_}" for id_ in call.after if id_ not in ids]
    if not problems:
        try:
            TopologicalSorter({call.id: call.after for call in calls}).prepare()
        except CycleError as error:
            problems.append(f"calls wait for each other: {' → '.join(error.args[1])}")
    if problems:
        raise WrongPlan("; ".join(problems))
    return calls


def with_stable_ids(calls: Sequence[Call], *, turn: str, plan: int) -> tuple[Call, ...]:
    """The calls with ids that depend on turn, number of the plan, place and content alone.

    A model repeats its ids ("a", "call_1") from turn to turn; these name one call of one plan of one turn, and are the
    same again should the plan be made a second time because a crash came before its checkpoint.
    """
    ids = {}
    for place, call in enumerate(calls):
        content = json.dumps([turn, plan, place, call.tool, call.args], sort_keys=True, default=str)
        ids[call.id] = f"call-{plan}-{place + 1}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    return tuple(replace(call, id=ids[call.id], after=tuple(ids[id_] for id_ in call.after)) for call in calls)


def default_plan(request: Request, tools: ToolRegistry, *, note: str = "") -> Plan:
    """The plan that an intent suggests, made without a model: search the documents, or remember, or recall."""
    known = tools.names()
    if request.intent == "memory":
        if not asks_to_remember(request.question):
            return Plan((), DEFAULT, note or _reply_to_telling(request.question))
        if REMEMBER not in known:
            return Plan(
                (),
                DEFAULT,
                "Long-term memory is off here (QDRANT_URL), so I cannot keep this beyond this conversation.",
            )
        return Plan((Call("a", REMEMBER, {"text": what_to_remember(request.question)}),), DEFAULT, note)
    if SEARCH not in known:
        return Plan((), DEFAULT, note)
    return Plan((Call("a", SEARCH, {"query": search_words(request)}),), DEFAULT, note)


def _reply_to_telling(message: str) -> str:
    """What there is to say to a message about the user that asks nothing; empty for a question."""
    if wants_forgotten(message):
        return "I cannot forget anything from here; DELETE /memories does."
    return KEPT_HERE if tells(message) else ""


def search_words(request: Request) -> str:
    """What to search for: the question; with the one before it when it says too little alone ("and for streams?")."""
    if request.previous_question and len(set(content_words(request.question))) < 3:
        return f"{request.previous_question} {request.question}"
    return request.question


class Planner:
    """Makes plans over a registry of tools."""

    def __init__(self, models: ChatModels, prompts: PromptRegistry, tools: ToolRegistry) -> None:
        self._models, self._prompts, self._tools = models, prompts, tools

    async def plan(self, request: Request) -> Plan:
        """A plan that can be run. Raises what the model's client raises when it cannot be reached."""
        prompt = self._prompts.get("plan")
        name = prompt.model or self._models.registry.roles[Role.ORCHESTRATOR]
        entry = self._models.registry.get(name)
        if not entry.plans:
            note = ""
            if request.intent == "data":
                note = f"I cannot answer questions about the data: {name} is too small to write database queries."
            elif request.intent == "api" and HTTP in self._tools.names():
                note = f"I cannot fetch this: {name} is too small to call web services."
            return default_plan(request, self._tools, note=note)
        problem = request.problem
        details = await self._tools.details()
        for _ in range(2):
            try:
                content = await structured(
                    self._models,
                    name,
                    prompt.messages(
                        tools=self._tools.describe(),
                        details=details,
                        history=request.history or "none",
                        memories="\n".join(f"- {memory}" for memory in request.memories) or "nothing",
                        question=request.question,
                        today=datetime.now(UTC).date().isoformat(),
                        problem=problem,
                    ),
                    PLAN_SCHEMA,
                    temperature=prompt.temperature,
                )
                return Plan(check_plan(content, self._tools), name)
            except (UnusableOutput, WrongPlan) as error:
                problem = f"Your last plan cannot be run: {error.text}. Give a correct one."
        _log.warning("plan.unusable", model=name)
        return default_plan(request, self._tools)
