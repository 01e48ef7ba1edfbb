"""What the nodes of the built-in agent work with, put together once per process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from langgraph.runtime import Runtime

from app.agents.classifier import Classifier
from app.agents.planner import Planner
from app.agents.writer import Writer
from app.infra.context import RunContext
from app.models.clients import ChatModels
from app.prompts.registry import PromptRegistry
from app.tools.registry import ToolRegistry
from app.workflows.state import AgentState


class Node(Protocol):
    """A node: state in, update out. The parameters' names are how LangGraph knows what to hand in."""

    async def __call__(self, state: AgentState, runtime: Runtime[RunContext]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class AgentServices:
    """Handed to each node by closure; tests put fakes in."""

    models: ChatModels
    prompts: PromptRegistry
    tools: ToolRegistry
    classifier: Classifier
    planner: Planner
    writer: Writer
    tool_concurrency: int = 4
    max_answer_retries: int = 2
    judge_model: str | None = None
    """Model asked for a second opinion on answers; None: the deterministic check alone."""
