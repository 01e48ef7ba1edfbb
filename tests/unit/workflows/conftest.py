"""The built-in agent over fakes: a scripted model, tools in memory, a classifier that is told what to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from app.agents.classifier import Classification
from app.agents.planner import Planner
from app.agents.writer import Writer
from app.prompts.registry import PromptRegistry
from app.tools.registry import Risk, Source, Tool, ToolCall, ToolRegistry, ToolResult
from app.workflows.services import AgentServices
from tests.support.scripted_model import ScriptedModels

PROMPTS = PromptRegistry.load()

LEASE = Source(title="Runs", uri="runs.md#lease", text="A worker holds a run by a lease of 5 seconds.", score=0.9)
KILLED = Source(
    title="Runs", uri="runs.md#killed", text="When a worker is killed, another worker takes the run over.", score=0.8
)


class Query(BaseModel):
    query: str


class Fact(BaseModel):
    text: str


@dataclass
class FixedClassifier:
    intent: str = "documents"
    complexity: float = 0.1

    async def classify(self, message: str) -> Classification:
        return Classification(self.intent, self.complexity, "test")


@dataclass
class Desk:
    """A test's agent: its services and what its tools were called with."""

    models: ScriptedModels
    classifier: FixedClassifier = field(default_factory=FixedClassifier)
    found: list[Source] = field(default_factory=lambda: [LEASE, KILLED])
    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    max_answer_retries: int = 2

    @property
    def services(self) -> AgentServices:
        tools = ToolRegistry([self._tool("search_documents", Query, self._search), self._tool("remember", Fact, _keep)])
        return AgentServices(
            models=self.models,
            prompts=PROMPTS,
            tools=tools,
            classifier=self.classifier,
            planner=Planner(self.models, PROMPTS, tools),
            writer=Writer(self.models, PROMPTS),
            max_answer_retries=self.max_answer_retries,
        )

    def _tool(self, name: str, arguments: type[BaseModel], act: Callable[[Any], ToolResult]) -> Tool[Any]:
        async def call(given: BaseModel, made: ToolCall) -> ToolResult:
            self.calls.append((name, made.call_id, given.model_dump()))
            return act(given)

        return Tool(name, f"{name}.", arguments, call, Risk.LOW, idempotent=True)

    def _search(self, given: Query) -> ToolResult:
        return ToolResult(ok=True, text="\n".join(source.text for source in self.found), sources=self.found)


def _keep(given: Fact) -> ToolResult:
    return ToolResult(ok=True, text=f"Remembered: {given.text}")


@pytest.fixture
def desk() -> Callable[..., Desk]:
    """Makes an agent whose model says `replies`; other arguments describe the model."""

    def make(*replies: Any, **entry: Any) -> Desk:
        return Desk(ScriptedModels(*replies, **entry))

    return make
