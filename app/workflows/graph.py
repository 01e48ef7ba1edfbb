"""The built-in agent.

    START → classify → plan → execute → answer → validate → END

    classify → answer     smalltalk needs no plan
    plan     → answer     nothing need be looked up: the model's plan is empty, or the user has told the answer before
    execute  → plan       no usable result, and another plan may differ
    validate → plan       the draft only says that the results do not hold the answer, and another plan may differ
    validate → answer     refused: another draft, at most MAX_ANSWER_RETRIES times
    any but classify → compose → END     there is no model's answer to be had

The work is checked twice. After `execute`, by a plain rule: without a usable result no model is asked to answer
(another plan is made, or `compose` says that nothing was found). After `answer`, by `validate`: the draft must rest on
the results. Validation follows the answer, because the answer's tokens stream while it is written: a client that waited
for the verdict would see nothing for most of the turn. A refused draft is announced by the custom event
`answer-superseded`, so that a client drops its tokens. `compose` answers without a model: it confirms what was
remembered, says that nothing was found, or quotes the best passage when no draft held or the model took too long.

In LangGraph's terms: compiled without a checkpointer (the worker, or a managed deployment, sets it), `RunContext` as
context, which may be absent.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from app.infra.context import RunContext
from app.infra.settings import settings
from app.workflows import routes
from app.workflows.assemble import services as services_of
from app.workflows.nodes.answer import answer
from app.workflows.nodes.classify import classify
from app.workflows.nodes.compose import compose
from app.workflows.nodes.execute import execute
from app.workflows.nodes.plan import plan
from app.workflows.nodes.validate import validate
from app.workflows.services import AgentServices
from app.workflows.state import AgentState

Agent = CompiledStateGraph[Any, Any, Any, Any]


def make_graph() -> Agent:
    """The agent over the process's settings. Opens no connection; raises `ConfigurationError` for wrong settings."""
    return _agent()


@cache
def _agent() -> Agent:
    """Made once: a managed deployment calls the factory for every run."""
    return build_graph(_services()).compile(name="agent")


@contextlib.asynccontextmanager
async def graph_lifespan() -> AsyncIterator[None]:
    """Held open by a worker, see `app.workflows.registry`: the documents are indexed before the first question."""
    tools = _services().tools
    try:
        await tools.warm()
        yield
    finally:
        await tools.close()


@cache
def _services() -> AgentServices:
    return services_of(settings())


def build_graph(services: AgentServices) -> StateGraph[AgentState, RunContext, Any, Any]:
    """The agent over `services`, not yet compiled."""
    graph = StateGraph(AgentState, context_schema=RunContext)
    graph.add_node("classify", classify(services))
    graph.add_node("plan", plan(services))
    graph.add_node("execute", execute(services))
    graph.add_node("answer", answer(services))
    graph.add_node("validate", validate(services))
    graph.add_node("compose", compose())
    graph.add_edge(START, "classify")
    graph.add_conditional_edges("classify", routes.after_classify, ["plan", "answer"])
    graph.add_conditional_edges("plan", routes.after_plan, ["execute", "answer", "compose"])
    graph.add_conditional_edges("execute", routes.after_execute, ["plan", "answer", "compose"])
    graph.add_conditional_edges("answer", routes.after_answer, ["validate", "compose"])
    graph.add_conditional_edges("validate", routes.after_validate, ["plan", "answer", "compose", END])
    graph.add_edge("compose", END)
    return graph
