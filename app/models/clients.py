"""LangChain chat models for the registry's entries; one client per model and temperature, made on first use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from langchain_core.messages import AIMessage, BaseMessage
from langgraph.constants import TAG_NOSTREAM

from app.infra.errors import SlipwayError
from app.models.registry import ModelEntry, ModelRegistry, Provider

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from app.infra.settings import ModelSettings

NO_STREAM = (TAG_NOSTREAM, "langsmith:nostream")
"""Tags of calls whose tokens are not the answer: LangGraph and LangSmith keep them out of the token stream."""


class UnusableOutput(SlipwayError):
    """The model did not give what the schema asks for. `output` is what it gave."""

    def __init__(self, text: str, output: str) -> None:
        super().__init__(text)
        self.output = output


class ChatModels(Protocol):
    """Gives the model of a role or of a name. Tests put their own in its place."""

    registry: ModelRegistry

    def chat(self, name: str, *, temperature: float | None = None) -> BaseChatModel:
        """A chat model that reports its usage, streaming or not."""
        ...


class Clients:
    """The real ones, over `langchain-openai` and `langchain-anthropic`."""

    def __init__(self, settings: ModelSettings, registry: ModelRegistry | None = None) -> None:
        self.registry = registry or ModelRegistry.load(settings)
        self._settings = settings
        self._made: dict[tuple[str, float], BaseChatModel] = {}

    def chat(self, name: str, *, temperature: float | None = None) -> BaseChatModel:
        wanted = self._settings.default_temperature if temperature is None else temperature
        made = self._made.get((name, wanted))
        if made is None:
            made = self._made[name, wanted] = self._make(self.registry.get(name), wanted)
        return made

    def _make(self, entry: ModelEntry, temperature: float) -> BaseChatModel:
        settings = self._settings
        limit = min(entry.output_tokens or settings.model_max_output_tokens, settings.model_max_output_tokens)
        options: dict[str, Any] = {"timeout": settings.model_timeout_seconds, "max_retries": 1}
        if entry.temperature:
            options["temperature"] = temperature
        if entry.provider is Provider.ANTHROPIC:
            from langchain_anthropic import ChatAnthropic

            return ChatAnthropic(
                model_name=entry.name, api_key=settings.anthropic_api_key, max_tokens_to_sample=limit, **options
            )
        from langchain_openai import ChatOpenAI
        from pydantic import SecretStr

        return ChatOpenAI(
            model=entry.name,
            # Servers of one's own often want no key; the client insists on one.
            api_key=settings.openai_api_key or SecretStr("none"),
            base_url=settings.openai_base_url,
            stream_usage=True,
            max_tokens=limit,
            **options,
        )


async def structured(
    models: ChatModels,
    name: str,
    messages: list[BaseMessage],
    schema: dict[str, Any],
    *,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Ask for a JSON object of `schema` (which needs `title` and `description`) in the way the model can do best.

    The object is not checked against the schema: who asks does, with an error of its own. Raises `UnusableOutput`
    when no JSON object came. Its tokens stay out of the answer's stream.
    """
    entry, model = models.registry.get(name), models.chat(name, temperature=temperature)
    config: Any = {"tags": list(NO_STREAM)}
    if entry.structured == "tools":
        raw = await model.bind_tools([schema], tool_choice=schema["title"]).ainvoke(messages, config)
        calls = raw.tool_calls if isinstance(raw, AIMessage) else []
        if not calls:
            raise UnusableOutput("the model made no tool call", raw.text)
        return dict(calls[0]["args"])
    if entry.structured == "json_schema":
        # Not `strict`: that forbids optional fields, and each tool's arguments differ.
        wanted = {"type": "json_schema", "json_schema": {"name": schema["title"], "schema": schema}}
        reply: BaseMessage = await model.bind(response_format=wanted).ainvoke(messages, config)
    else:
        reply = await model.ainvoke(messages, config)
    return json_object(reply.text)


def json_object(text: str) -> dict[str, Any]:
    """The first JSON object in `text`, whatever stands around it. Raises `UnusableOutput` when there is none."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            value, _ = decoder.raw_decode(text, start)
        except ValueError:
            start = text.find("{", start + 1)
            continue
        if isinstance(value, dict):
            return value
        start = text.find("{", start + 1)
    raise UnusableOutput("the output holds no JSON object", text)
