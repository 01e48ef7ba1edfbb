"""The registry of tools: who may be called, with what, at which risk; and the one way to call them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from langgraph.errors import GraphBubbleUp
from opentelemetry.trace import Status, StatusCode
from pydantic import ValidationError

from app.infra import telemetry
from app.infra.context import RunContext
from app.infra.errors import ConfigurationError, StaleEpoch
from app.infra.logging import get_logger
from app.tools.tool import Risk, Source, Tool, ToolCall, ToolError, ToolResult

__all__ = ["Risk", "Source", "Tool", "ToolCall", "ToolError", "ToolRegistry", "ToolResult"]

_log = get_logger(__name__)

MAX_TEXT_CHARS = 32_000
"""Longest text of a result; what is over is cut, and the text says so."""


class ToolRegistry:
    """Tools by name. Holds what they have open, too: `close` it with the process."""

    def __init__(
        self,
        tools: Iterable[Tool[Any]] = (),
        *,
        warming: Iterable[Callable[[], Awaitable[None]]] = (),
        closing: Iterable[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self._tools: dict[str, Tool[Any]] = {}
        self._warming, self._closing = list(warming), list(closing)
        for tool in tools:
            self.add(tool)

    def add(self, tool: Tool[Any]) -> None:
        """Register one more. Raises `ConfigurationError` when the name is taken."""
        if tool.name in self._tools:
            raise ConfigurationError(f"two tools are named {tool.name}", fix="rename one of them")
        self._tools[tool.name] = tool

    def get(self, name: str) -> Tool[Any] | None:
        """The tool of that name, or None."""
        return self._tools.get(name)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._tools)

    def risk(self, name: str) -> Risk:
        """The risk of calling `name`; HIGH when there is no such tool."""
        tool = self._tools.get(name)
        return Risk.HIGH if tool is None else tool.risk

    def describe(self, names: Iterable[str] | None = None) -> str:
        """The tools for a planner's prompt: per tool a line with its description and one with its arguments' schema."""
        chosen = [self._tools[name] for name in sorted(self._tools if names is None else names)]
        return "\n".join(
            f"- {tool.name}: {tool.description}\n  arguments: {_compact(tool.schema())}" for tool in chosen
        )

    async def details(self, names: Iterable[str] | None = None) -> str:
        """What else a planner must know of the tools, such as a database's tables; empty when there is nothing.

        A tool that cannot tell now is left out.
        """
        parts = []
        for name in sorted(self._tools if names is None else names):
            details = self._tools[name].details
            if details is not None:
                try:
                    parts.append(await details())
                except (ToolError, TimeoutError):
                    _log.warning("tool.details_missing", tool=name, exc_info=True)
        return "\n\n".join(parts)

    async def invoke(
        self, name: str, args: Mapping[str, Any], *, call_id: str, task_id: str, context: RunContext | None
    ) -> ToolResult:
        """Call a tool; once for (thread, `task_id`, `call_id`) where `context` has a journal.

        Whatever goes wrong in the call is a result with `ok` False: an unknown name, wrong arguments, a refusal,
        too long a wait, an error in the tool. What is not the tool's passes through: cancellation, LangGraph's
        interrupts, `StaleEpoch`, and errors of the journal. Traced and measured as `execute_tool <name>`, without
        arguments and text.
        """
        # A name that a model made up is no label: there may be any number of them.
        known = name if name in self._tools else "unknown"
        # Names by OpenTelemetry's semantic conventions for generative AI.
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": known,
            "gen_ai.tool.call.id": call_id,
        }
        started, outcome = time.monotonic(), "stopped"
        # What passes through stops the run, or asks a person: no failure of the tool.
        with telemetry.tracer.start_as_current_span(
            f"execute_tool {known}", attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                result = await self._invoke(name, args, call_id=call_id, task_id=task_id, context=context)
                outcome = "ok" if result.ok else "failed"
                if not result.ok:
                    span.set_status(Status(StatusCode.ERROR))
                return result
            finally:
                seconds = time.monotonic() - started
                telemetry.tool_duration.record(seconds, {"tool": known, "outcome": outcome})

    async def _invoke(
        self, name: str, args: Mapping[str, Any], *, call_id: str, task_id: str, context: RunContext | None
    ) -> ToolResult:
        tool = self._tools.get(name)
        if tool is None:
            return ToolResult.failed(f"There is no tool {name!r}. Use one of: {', '.join(self.names())}.")
        try:
            arguments = tool.arguments.model_validate(dict(args))
        except ValidationError as error:
            return ToolResult.failed(_explain(tool, error))
        call = ToolCall(name, call_id, task_id, context)

        async def perform() -> str:
            return (await _bounded(tool, arguments, call)).to_json()

        if context is None:
            return ToolResult.from_json(await perform())
        recorded = await context.effects.perform(call.key, tool=name, idempotent=tool.idempotent, call=perform)
        return ToolResult.from_json(recorded)

    async def warm(self) -> None:
        """Begin in the background what the first calls would wait for, such as indexing. Optional; never raises
        for something that is away."""
        for warm in self._warming:
            await warm()

    async def close(self) -> None:
        """Give back what the tools have open. Safe to call twice."""
        closing, self._closing = self._closing, []
        for close in closing:
            await close()


async def _bounded(tool: Tool[Any], arguments: Any, call: ToolCall) -> ToolResult:
    try:
        async with asyncio.timeout(tool.timeout_seconds):
            result = await tool.call(arguments, call)
    except (StaleEpoch, GraphBubbleUp):
        raise
    except ToolError as failure:
        return ToolResult.failed(str(failure))
    except TimeoutError:
        text = f"{tool.name} did not answer within {tool.timeout_seconds:g} s."
        if not tool.idempotent:
            text += " Whether it took effect is unknown: do not repeat it unasked."
        return ToolResult.failed(text)
    except Exception as error:
        # A tool is foreign code: whatever it raises ends its call, not the run. Its text may quote data or
        # credentials, so the model gets its type only (and the log leaves texts out, see app.infra.logging).
        _log.warning("tool.failed", tool=tool.name, call_id=call.call_id, exc_info=True)
        return ToolResult.failed(
            f"{tool.name} failed ({type(error).__name__}). Try it another way or go on without it."
        )
    if len(result.text) > MAX_TEXT_CHARS:
        cut = f"{result.text[:MAX_TEXT_CHARS]}\n[cut: {len(result.text) - MAX_TEXT_CHARS} more characters]"
        return result.model_copy(update={"text": cut})
    return result


def _explain(tool: Tool[Any], error: ValidationError) -> str:
    """The wrong arguments, named, and the schema to follow: enough for a model to put its call right."""
    problems = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'arguments'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return f"Wrong arguments for {tool.name}: {'; '.join(problems)}. They must fit {_compact(tool.schema())}"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
