"""Graphs of the benchmarks: one node, an in-process model that answers at once or as a clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk

from tests.support.graphs import WordsModel, one_node

TOKENS = 20
TOKEN_SECONDS = 0.05


class ClockModel(WordsModel):
    """Says the time (ns since the epoch) at each token: who reads a token knows how long it was on its way."""

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for _ in range(TOKENS):
            await asyncio.sleep(TOKEN_SECONDS)
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{time.time_ns()} "))


instant = one_node(WordsModel())
clock = one_node(ClockModel())
