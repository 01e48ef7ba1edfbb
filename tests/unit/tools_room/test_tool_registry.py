"""What the registry promises to the graph: results instead of exceptions, one effect per call, nothing leaked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.tools import StructuredTool, tool
from langgraph.errors import GraphInterrupt
from pydantic import BaseModel, Field

from app.infra.context import RunContext
from app.infra.errors import ConfigurationError, StaleEpoch
from app.infra.fence import Fence
from app.infra.ids import Release, RunId, TenantId, ThreadId, UserId
from app.tools.langchain import from_langchain
from app.tools.registry import Risk, Source, Tool, ToolCall, ToolError, ToolRegistry, ToolResult
from tests.support.journal import Journal

Body = Callable[["Add", ToolCall], Awaitable[ToolResult]]


class Add(BaseModel):
    a: int
    b: int = Field(1, ge=0)


def run_of(journal: Journal, *, tenant: str = "acme", user: str = "ann", thread: str = "th1") -> RunContext:
    """A run's context, as `app.runs` hands it down."""
    fence = Fence(RunId("r1"), 1)
    return RunContext(
        RunId("r1"), ThreadId(thread), TenantId(tenant), UserId(user), Release("stable"), 1, fence, journal
    )


def adding(call: Body, **options: Any) -> ToolRegistry:
    """A registry with one tool, `add`, that does what `call` does."""
    declared: dict[str, Any] = {"risk": Risk.LOW, "idempotent": True, **options}
    return ToolRegistry([Tool(name="add", description="Adds.", arguments=Add, call=call, **declared)])


async def sum_of(arguments: Add, _call: ToolCall) -> ToolResult:
    return ToolResult(ok=True, text=str(arguments.a + arguments.b))


async def invoke(registry: ToolRegistry, args: dict[str, Any], context: RunContext | None = None) -> ToolResult:
    return await registry.invoke("add", args, call_id="c1", task_id="t1", context=context)


async def test_a_result_survives_the_journal() -> None:
    """The journal keeps text; on resume the graph must get the very result it got before."""
    result = ToolResult(ok=True, text="ü", data={"rows": [[1, None, 2.5]]}, sources=[Source(title="t", uri="u#a")])
    assert ToolResult.from_json(result.to_json()) == result


async def test_a_call_is_performed_once_per_key() -> None:
    """Resuming a crashed step calls again with the same ids; another call of another thread is another effect."""
    made = []

    async def counted(arguments: Add, call: ToolCall) -> ToolResult:
        made.append(call.key)
        return ToolResult(ok=True, text=str(len(made)))

    journal, registry = Journal(), adding(counted, idempotent=False)
    first = await invoke(registry, {"a": 1}, run_of(journal))
    assert await invoke(registry, {"a": 1}, run_of(journal)) == first
    for other in (run_of(journal, thread="th2"), run_of(journal, tenant="other")):
        assert await invoke(registry, {"a": 1}, other) != first
    assert made == ["acme:th1:t1:c1", "acme:th2:t1:c1", "other:th1:t1:c1"]


@pytest.mark.parametrize("ids", [("", "t1"), ("c1", "")])
async def test_a_call_in_a_run_needs_its_ids(ids: tuple[str, str]) -> None:
    """Without them two calls of a run would be one effect, and the second would silently not be made."""
    with pytest.raises(ValueError, match=r"execution_info\.task_id"):
        await adding(sum_of).invoke("add", {"a": 1}, call_id=ids[0], task_id=ids[1], context=run_of(Journal()))


async def test_wrong_arguments_are_explained_and_never_performed() -> None:
    """The planner gets what is wrong and the schema, not the value, which may be anything."""
    journal = Journal()
    result = await invoke(adding(sum_of), {"a": "s3cret", "b": -1}, run_of(journal))
    assert not result.ok
    assert "a: Input should be a valid integer" in result.text
    assert "b: Input should be greater than or equal to 0" in result.text
    assert '"required":["a"]' in result.text
    assert "s3cret" not in result.text
    assert journal.records == {}


async def test_an_unknown_tool_is_a_result_and_counts_as_high_risk() -> None:
    """Models invent tools; the gate must not let an invented one pass as harmless."""
    registry = adding(sum_of)
    result = await registry.invoke("delete_all", {}, call_id="c", task_id="t", context=None)
    assert (result.ok, result.text) == (False, "There is no tool 'delete_all'. Use one of: add.")
    assert registry.risk("delete_all") is Risk.HIGH
    assert Risk.LOW < Risk.MEDIUM < Risk.HIGH < Risk.CRITICAL


async def test_what_a_tool_raises_is_a_result_without_its_text() -> None:
    """Exceptions quote URLs with passwords and rows with people."""

    async def breaks(_arguments: Add, _call: ToolCall) -> ToolResult:
        raise RuntimeError("postgresql://me:s3cret@db")

    result = await invoke(adding(breaks), {"a": 1})
    assert not result.ok
    assert "RuntimeError" in result.text
    assert "s3cret" not in result.text


async def test_a_refusal_reaches_the_model_with_its_fix() -> None:
    """A tool ends its call on purpose with words for the model."""

    async def refuses(_arguments: Add, _call: ToolCall) -> ToolResult:
        raise ToolError("too big", fix="halve it")

    assert (await invoke(adding(refuses), {"a": 1})).text == "too big; halve it"


async def test_a_call_that_takes_too_long_is_ended() -> None:
    """One dead service must not hold a worker's slot; whether a change took effect is then unknown, and said."""

    async def hangs(_arguments: Add, _call: ToolCall) -> ToolResult:
        await asyncio.Event().wait()
        raise AssertionError

    result = await invoke(adding(hangs, timeout_seconds=0.01, idempotent=False), {"a": 1})
    assert not result.ok
    assert "Whether it took effect is unknown" in result.text
    result = await invoke(adding(hangs, timeout_seconds=0.01), {"a": 1})
    assert result.text == "add did not answer within 0.01 s. Try it another way or go on without it."


@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError(), GraphInterrupt(()), StaleEpoch("r1", 1, 2)],
    ids=lambda error: type(error).__name__,
)
async def test_what_is_not_the_tools_own_failure_passes_through(error: BaseException) -> None:
    """A cancelled, interrupted or superseded run must stop; a result instead would let it go on."""

    async def stops(_arguments: Add, _call: ToolCall) -> ToolResult:
        raise error

    with pytest.raises(type(error)):
        await invoke(adding(stops), {"a": 1}, run_of(Journal()))


async def test_a_long_text_is_cut_and_says_so() -> None:
    """Results go into prompts, which are paid by length."""

    async def talks(_arguments: Add, _call: ToolCall) -> ToolResult:
        return ToolResult(ok=True, text="x" * 50_000)

    result = await invoke(adding(talks), {"a": 1})
    assert result.text.endswith("[cut: 18000 more characters]")


async def test_the_description_shows_each_tool_with_its_arguments() -> None:
    """All that a planner knows of a tool."""
    text = adding(sum_of).describe()
    assert text.startswith("- add: Adds.\n  arguments: {")
    assert '"title"' not in text


async def test_details_leave_out_a_tool_that_cannot_tell_now() -> None:
    """A database that is away must not keep the planner from planning without it."""

    async def away() -> str:
        raise ToolError("the database does not answer")

    async def there() -> str:
        return "Tables: t"

    registry = adding(sum_of, details=away)
    registry.add(Tool("db", "d", Add, sum_of, Risk.LOW, True, details=there))
    assert await registry.details() == "Tables: t"


async def test_two_tools_of_one_name_stop_the_start() -> None:
    """The second would silently answer for the first."""
    registry = adding(sum_of)
    with pytest.raises(ConfigurationError, match="add"):
        registry.add(Tool("add", "", Add, sum_of, Risk.LOW, True))


async def test_closing_gives_back_what_is_open_once() -> None:
    """A worker closes in its own cleanup, and again when that fails half-way."""
    closed = []

    async def close() -> None:
        closed.append(1)

    registry = ToolRegistry(closing=[close])
    await registry.close()
    await registry.close()
    assert closed == [1]


async def test_a_langchain_tool_is_called_with_its_own_schema() -> None:
    """A user's graph brings tools in LangChain's form; unmarked, they are taken for dangerous."""

    @tool
    def multiply(a: int, b: int) -> int:
        """Multiplies."""
        return a * b

    wrapped = from_langchain(multiply)
    registry = ToolRegistry([wrapped])
    result = await registry.invoke("multiply", {"a": 6, "b": 7}, call_id="c", task_id="t", context=None)
    assert (result.text, result.data) == ("42", {"output": 42})
    assert (wrapped.risk, wrapped.idempotent) == (Risk.HIGH, False)
    wrong = await registry.invoke("multiply", {"a": "x"}, call_id="c", task_id="t", context=None)
    assert "b: Field required" in wrong.text


async def test_a_langchain_tool_with_a_json_schema_is_checked_against_it() -> None:
    """Tools that come over MCP declare plain JSON schema."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

    async def weather(city: str) -> str:
        return f"sun in {city}"

    mcp = StructuredTool(name="weather", description="Weather.", args_schema=schema, coroutine=weather)
    registry = ToolRegistry([from_langchain(mcp, risk=Risk.LOW, idempotent=True)])
    result = await registry.invoke("weather", {"city": "Rome"}, call_id="c", task_id="t", context=None)
    assert result.text == "sun in Rome"
    wrong = await registry.invoke("weather", {"city": 3}, call_id="c", task_id="t", context=None)
    assert "is not of type 'string'" in wrong.text
    assert '"city"' in registry.describe()
