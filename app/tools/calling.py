"""Makes one call of a tool, and says what is certain of it: a result always comes out, whatever the tool raises."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from langgraph.errors import GraphBubbleUp
from pydantic_core import PydanticSerializationError

from app.infra.effects import EffectCall, EffectState, Outcome
from app.infra.errors import StaleEpoch
from app.infra.logging import get_logger
from app.tools.tool import OutcomeUnknown, Tool, ToolCall, ToolError, ToolResult, being_made

_log = get_logger(__name__)

MAX_TEXT_CHARS = 32_000
"""Longest text of a result; what is over is cut, and the text says so."""
MAX_RESULT_BYTES = 1_000_000
"""Largest result as JSON; one that is larger keeps its text only, and the text says so."""


def effect_call(tool: Tool[Any], arguments: Any, call: ToolCall, given: Mapping[str, Any]) -> EffectCall:
    """The call as the effect journal sees it; `arguments` are `given`, checked."""
    lookup = tool.lookup

    async def look_up() -> Outcome | None:
        return await _look_up(tool, arguments, call)

    async def make() -> Outcome:
        return await perform(tool, arguments, call)

    return EffectCall(
        key=call.key,
        tool=tool.name,
        call_id=call.call_id,
        task_id=call.task_id,
        fingerprint=hashlib.sha256(json.dumps([tool.name, given], sort_keys=True, default=str).encode()).hexdigest(),
        idempotent=tool.idempotent,
        timeout_seconds=tool.timeout_seconds,
        perform=make,
        lookup=None if lookup is None or tool.idempotent else look_up,
    )


async def perform(tool: Tool[Any], arguments: Any, call: ToolCall) -> Outcome:
    """Make the call within the tool's time.

    A failure is certain where the tool says so (a result that is not `ok`, a `ToolError`) and where repeating it would
    do no harm. A time-out, or any other error, of a tool that is not idempotent leaves the outcome unknown.
    """
    try:
        with being_made(call):
            async with asyncio.timeout(tool.timeout_seconds):
                result = await tool.call(arguments, call)
    except (StaleEpoch, GraphBubbleUp):
        raise
    except OutcomeUnknown as failure:
        return _uncertain(tool, str(failure))
    except ToolError as failure:
        return _outcome(ToolResult.failed(str(failure)))
    except TimeoutError:
        return _uncertain(tool, f"{tool.name} did not answer within {tool.timeout_seconds:g} s")
    except Exception as error:
        # A tool is foreign code: whatever it raises ends its call, not the run. Its text may quote data or
        # credentials, so the model gets its type only (and the log leaves texts out, see app.infra.logging).
        _log.warning("tool.failed", tool=tool.name, call_id=call.call_id, exc_info=True)
        return _uncertain(tool, f"{tool.name} failed ({type(error).__name__})")
    return _outcome(result)


async def _look_up(tool: Tool[Any], arguments: Any, call: ToolCall) -> Outcome | None:
    assert tool.lookup is not None
    try:
        async with asyncio.timeout(tool.timeout_seconds):
            result = await tool.lookup(arguments, call)
    except StaleEpoch:
        raise
    except Exception as error:  # foreign code, as above: it cannot tell, and a person can still be asked
        _log.warning("tool.lookup_failed", tool=tool.name, call_id=call.call_id, exc_info=True)
        return Outcome(EffectState.UNKNOWN, "", f"asking what became of it failed ({type(error).__name__})")
    return None if result is None else _outcome(result)


def _uncertain(tool: Tool[Any], reason: str) -> Outcome:
    """After a failure that says nothing of the effect: it does not matter where the call may be repeated."""
    if tool.idempotent:
        return _outcome(ToolResult.failed(f"{reason}. Try it another way or go on without it."))
    doubt = "" if tool.lookup else " Whether it took effect is unknown: do not repeat it unasked."
    return Outcome(EffectState.UNKNOWN, ToolResult.failed(f"{reason}.{doubt}").to_json(), reason)


def _outcome(result: ToolResult) -> Outcome:
    return Outcome(EffectState.DONE if result.ok else EffectState.FAILED, _bounded(result))


def _bounded(result: ToolResult) -> str:
    """The result as JSON, neither too long nor with what JSON cannot hold: the effect has happened, so no error now."""
    if len(result.text) > MAX_TEXT_CHARS:
        cut = f"{result.text[:MAX_TEXT_CHARS]}\n[cut: {len(result.text) - MAX_TEXT_CHARS} more characters]"
        result = result.model_copy(update={"text": cut})
    try:
        found = result.to_json()
        if len(found) <= MAX_RESULT_BYTES:
            return found
        note = "its data and sources are left out, they are too large"
    except PydanticSerializationError:  # half of a surrogate pair, for example
        note = "its data and sources are left out, they cannot be written as JSON"
    text = result.text.encode("utf-8", "replace").decode()
    return ToolResult(ok=result.ok, text=f"{text}\n[{note}]").to_json()
