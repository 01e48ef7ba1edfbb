"""Puts the agent's services together from the settings; nothing is connected or loaded before its first use."""

from __future__ import annotations

from app.agents.classifier import Classifier, ExampleClassifier, ModelClassifier, load_intents
from app.agents.planner import Planner
from app.agents.writer import Writer
from app.infra.settings import Settings
from app.memory.embeddings import open_embeddings
from app.models.clients import Clients
from app.models.registry import EMBEDDING, Role
from app.prompts.registry import PromptRegistry
from app.tools.builtin import builtin_tools
from app.workflows.run_store import RunStore
from app.workflows.services import AgentServices


def services(settings: Settings) -> AgentServices:
    """The services for `settings`. Raises `ConfigurationError` for a missing key, a wrong prompt or registry."""
    models = Clients(settings.models)
    models.registry.check(settings.models)
    prompts = PromptRegistry.load(settings.tools.prompt_version)
    embeddings = open_embeddings(settings)
    store = None if settings.tools.qdrant_url is None else RunStore()
    tools = builtin_tools(settings, store=store, embeddings=embeddings)  # your own: tools.add(…)
    intents = load_intents()
    classifier: Classifier = ExampleClassifier(intents, embeddings.aembed_documents)
    chosen = models.registry.roles[Role.CLASSIFIER]
    if chosen != EMBEDDING:
        classifier = ModelClassifier(chosen, models, prompts, intents, fallback=classifier)
    return AgentServices(
        models=models,
        prompts=prompts,
        tools=tools,
        classifier=classifier,
        planner=Planner(models, prompts, tools),
        writer=Writer(models, prompts),
        tool_concurrency=settings.tools.tool_concurrency,
        max_answer_retries=settings.tools.max_answer_retries,
        judge_model=settings.models.answer_judge_model,
    )
