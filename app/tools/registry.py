"""The registry of tools: who may be called, with what, at which risk; and the one way to call them."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from langgraph.runtime import get_runtime
from opentelemetry.trace import Status, StatusCode
from pydantic import ValidationError

from app.infra import telemetry
from app.infra.context import RunContext
from app.infra.effects import CallIdReused, EffectState
from app.infra.errors import ConfigurationError
from app.infra.ids import RunId
from app.infra.logging import get_logger
from app.tools.asking import Attempt, Step
from app.tools.calling import effect_call, perform
from app.tools.tool import Risk, Source, Tool, ToolCall, ToolError, ToolResult

__all__ = ["Risk", "Source", "Tool", "ToolCall", "ToolError", "ToolRegistry", "ToolResult"]

_log = get_logger(__name__)


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
        self._steps: dict[tuple[RunId, int, str, int], Step] = {}
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
        too long a wait, an error in the tool. A call whose outcome is unknown, and which can be neither made again
        nor looked up, stops the run for a person (`GraphInterrupt`), together with those that the step makes at the
        same time. What is not the tool's passes through: cancellation, LangGraph's interrupts, `StaleEpoch`, and
        errors of the journal. Traced and measured as `execute_tool <name>`, without arguments and text.
        """
        if context is None:
            return (await self.attempt(name, args, call_id=call_id, task_id=task_id, context=None)).certain()
        place = (context.run_id, context.fence.epoch, task_id, _node_attempt())
        step = self._steps.setdefault(place, Step(context))
        try:
            with step:
                while True:
                    made = await self.attempt(name, args, call_id=call_id, task_id=task_id, context=context)
                    if not await step.settled(made):
                        return made.certain()
        finally:
            if step.idle:
                self._steps.pop(place, None)

    async def attempt(
        self, name: str, args: Mapping[str, Any], *, call_id: str, task_id: str, context: RunContext | None
    ) -> Attempt:
        """`invoke` for those who make several calls and ask for all of them at once: nobody is asked here.

        A call whose outcome is unknown has no result: see `app.tools.asking.Questions`. Raises ValueError for a call
        in a run that has no id.
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
                made = await self._attempt(name, args, call_id=call_id, task_id=task_id, context=context)
                outcome = "unknown" if made.result is None else "ok" if made.result.ok else "failed"
                if outcome != "ok":
                    span.set_status(Status(StatusCode.ERROR))
                return made
            finally:
                seconds = time.monotonic() - started
                telemetry.tool_duration.record(seconds, {"tool": known, "outcome": outcome})

    async def _attempt(
        self, name: str, args: Mapping[str, Any], *, call_id: str, task_id: str, context: RunContext | None
    ) -> Attempt:
        if context is not None and not (task_id and call_id):
            raise ValueError(
                f"a call of {name} in a run needs a call_id and a task_id: without them two calls would be one effect; "
                "pass an id that is the same whenever the step runs, and runtime.execution_info.task_id"
            )
        call, given = ToolCall(name, call_id, task_id, context), dict(args)
        tool = self._tools.get(name)
        if tool is None:
            text = f"There is no tool {name!r}. Use one of: {', '.join(self.names())}."
            return Attempt(call, given, ToolResult.failed(text))
        try:
            arguments = tool.arguments.model_validate(given)
        except ValidationError as error:
            return Attempt(call, given, ToolResult.failed(_explain(tool, error)))
        if context is None:
            return Attempt(call, given, ToolResult.from_json((await perform(tool, arguments, call)).result))
        try:
            effect = await context.effects.perform(effect_call(tool, arguments, call, given))
        except CallIdReused as error:
            return Attempt(call, given, ToolResult.failed(str(error)))
        settled = effect.state in (EffectState.DONE, EffectState.FAILED)
        return Attempt(call, given, ToolResult.from_json(effect.result) if settled else None, effect)

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


def _node_attempt() -> int:
    """Which attempt of LangGraph's own retries the current step is; 0 outside a graph."""
    try:
        info = getattr(get_runtime(), "execution_info", None)
    except (RuntimeError, KeyError):
        return 0
    return 0 if info is None else int(info.node_attempt)


def _explain(tool: Tool[Any], error: ValidationError) -> str:
    """The wrong arguments, named, and the schema to follow: enough for a model to put its call right."""
    problems = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'arguments'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return f"Wrong arguments for {tool.name}: {'; '.join(problems)}. They must fit {_compact(tool.schema())}"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
