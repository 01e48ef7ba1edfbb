"""A chat model that says what a test wrote down, and a stand-in for the clients that gives it under every name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import Field

from app.models.registry import ModelEntry, ModelRegistry, Role

USAGE = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}


class ScriptedModel(BaseChatModel):
    """Gives `replies` one after the other; a dict is the arguments of a tool call. Remembers what it was asked."""

    replies: list[str | dict[str, Any]]
    asked: list[list[BaseMessage]] = Field(default_factory=list)
    options: list[dict[str, Any]] = Field(default_factory=list)
    stops: list[list[str] | None] = Field(default_factory=list)
    pause: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _next(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> AIMessage:
        self.asked.append(messages)
        self.options.append(options)
        self.stops.append(stop)
        if not self.replies:
            raise AssertionError("the model was asked more often than the script says")
        reply = self.replies.pop(0)
        if isinstance(reply, dict):
            return AIMessage("", tool_calls=[{"name": "called", "args": reply, "id": "1"}], usage_metadata=USAGE)
        return AIMessage(reply, response_metadata={"model_name": "scripted"}, usage_metadata=USAGE)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages, stop, kwargs))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if self.pause:
            await asyncio.sleep(self.pause)
        reply = self._next(messages, stop, kwargs)
        words = [f"{word} " for word in reply.text.split(" ")]
        for word in [*words[:-1], words[-1].removesuffix(" ")]:
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        last = AIMessageChunk(
            content="", response_metadata=reply.response_metadata, usage_metadata=USAGE, chunk_position="last"
        )
        yield ChatGenerationChunk(message=last)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.pause:
            await asyncio.sleep(self.pause)
        return ChatResult(generations=[ChatGeneration(message=self._next(messages, stop, kwargs))])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(tools=tools, **kwargs)


class ScriptedModels:
    """`ChatModels` that gives one scripted model whatever is asked for; `entry` describes it."""

    def __init__(self, *replies: str | dict[str, Any], pause: float = 0.0, **entry: Any) -> None:
        described = ModelEntry(name="scripted", **{"structured": "json_schema", **entry})
        self.registry = ModelRegistry({"scripted": described}, dict.fromkeys(Role, "scripted"))
        self.model = ScriptedModel(replies=list(replies), pause=pause)
        self.temperatures: list[float | None] = []

    def chat(self, name: str, *, temperature: float | None = None) -> BaseChatModel:
        self.temperatures.append(temperature)
        return self.model
