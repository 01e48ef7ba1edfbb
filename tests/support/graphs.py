"""Small graphs for tests and benchmarks, registered in `tests/support/langgraph.json`; no network, no key.

`instant` answers at once through an in-process model that streams; the others show one behaviour each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    steps: int


class WordsModel(BaseChatModel):
    """Answers with what it was told, a word a chunk; `pause` seconds before each word."""

    pause: float = 0.0
    words: int = 0
    """How many words it says; 0: those of the last message."""

    @property
    def _llm_type(self) -> str:
        return "words"

    def _answer(self, messages: list[BaseMessage]) -> list[str]:
        if self.words:
            return [f"w{number} " for number in range(self.words)]
        return [f"{word} " for word in f"you said: {messages[-1].text}".split()]

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        message = AIMessage("".join(self._answer(messages)), response_metadata={"model_name": "words"})
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        words = self._answer(messages)
        for number, word in enumerate(words):
            if self.pause:
                await asyncio.sleep(self.pause)
            last = number == len(words) - 1
            chunk = AIMessageChunk(
                content=word,
                response_metadata={"model_name": "words"} if last else {},
                usage_metadata={"input_tokens": 3, "output_tokens": len(words), "total_tokens": 3 + len(words)}
                if last
                else None,
            )
            yield ChatGenerationChunk(message=chunk)


def one_node(model: BaseChatModel) -> Any:
    """START -> answer -> END."""

    async def answer(state: State) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(State)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile()


instant = one_node(WordsModel())
slow = one_node(WordsModel(pause=0.05, words=100))
"""Five seconds of tokens."""


def _steps() -> Any:
    async def step(state: State) -> dict[str, Any]:
        get_stream_writer()({"step": state.get("steps", 0) + 1})
        await asyncio.sleep(0.3)
        return {"steps": state.get("steps", 0) + 1}

    async def answer(state: State) -> dict[str, Any]:
        return {"messages": [AIMessage(f"after {state['steps']} steps")], "steps": 0}

    graph = StateGraph(State)
    graph.add_node("step", step)
    graph.add_node("answer", answer)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: "answer" if state["steps"] >= 10 else "step", ["step", "answer"])
    graph.add_edge("answer", END)
    return graph.compile()


steps = _steps()
"""Ten steps of 0.3 s: long enough to be drained or killed between two of them."""


def _failing() -> Any:
    async def fail(state: State) -> dict[str, Any]:
        if state["messages"][-1].text == "unreachable":
            raise ConnectionError("the secret address 10.1.2.3 does not answer")
        raise ValueError(f"cannot do {state['messages'][-1].text}")

    graph = StateGraph(State)
    graph.add_node("fail", fail)
    graph.add_edge(START, "fail")
    return graph.compile()


failing = _failing()
"""Raises: ConnectionError for the message `unreachable`, else ValueError that quotes the message."""


def _asking() -> Any:
    async def ask(state: State) -> dict[str, Any]:
        said = interrupt({"question": "really?"})
        return {"messages": [AIMessage(f"you decided: {said}")]}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    return graph.compile()


asking = _asking()
"""Stops for a person."""


def _nested() -> Any:
    graph = StateGraph(State)
    graph.add_node("inner", one_node(WordsModel()))
    graph.add_edge(START, "inner")
    return graph.compile()


nested = _nested()
"""`instant` as a subgraph."""


def _blocking() -> Any:
    async def block(state: State) -> dict[str, Any]:
        import time

        time.sleep(3)  # noqa: ASYNC251 - what a careless node does: it holds the event loop for longer than the lease
        return {"messages": [AIMessage("done")]}

    graph = StateGraph(State)
    graph.add_node("block", block)
    graph.add_edge(START, "block")
    return graph.compile()


blocking = _blocking()


def _asking_twice() -> Any:
    async def first(state: State) -> dict[str, Any]:
        return {"messages": [AIMessage(f"first: {interrupt('one?')}")]}

    async def second(state: State) -> dict[str, Any]:
        return {"messages": [AIMessage(f"second: {interrupt('two?')}")]}

    graph = StateGraph(State)
    graph.add_node("first", first)
    graph.add_node("second", second)
    graph.add_edge(START, "first")
    graph.add_edge(START, "second")
    return graph.compile()


asking_twice = _asking_twice()
"""Stops with two questions at once."""
