"""What a tool is: its declaration, what it is told of the call, and what comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.infra.context import RunContext
from app.infra.errors import SlipwayError

A = TypeVar("A", bound=BaseModel)


class Risk(IntEnum):
    """How much harm a call can do; ordered, so that a gate compares. An unknown tool counts as HIGH."""

    LOW = 1
    """Reads what the service itself holds, or writes what can be taken back."""
    MEDIUM = 2
    """Tells an outside system something, changes nothing there."""
    HIGH = 3
    """Changes an outside system."""
    CRITICAL = 4
    """Cannot be taken back: money, deletion, messages to people."""


class Source(BaseModel):
    """Where a piece of a result comes from."""

    model_config = ConfigDict(frozen=True)

    title: str
    uri: str
    """A path with anchor (`guide.md#install`), a URL or `database:<table>`."""
    text: str = Field("", repr=False)
    """The passage itself; empty where the source is not a text."""
    score: float = 0.0
    """How well it fits, comparable within one result only."""


class ToolResult(BaseModel):
    """What a call gave. A refused or failed call is a result too: `ok` False, and `text` says what to do.

    Survives `to_json` and `from_json`, which is how the effect journal keeps it.
    """

    model_config = ConfigDict(frozen=True)

    ok: bool
    text: str
    """For the model: the outcome in words."""
    data: dict[str, JsonValue] = Field(default_factory=dict)
    """For programs: what each tool documents."""
    sources: list[Source] = Field(default_factory=list)

    @classmethod
    def failed(cls, text: str, **data: JsonValue) -> Self:
        """The result of a call that did not do what was asked."""
        return cls(ok=False, text=text, data=data)

    def to_json(self) -> str:
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls.model_validate_json(text)


class ToolError(SlipwayError):
    """Raised inside a tool to end the call without an effect: nothing of what was asked has happened.

    Its text reaches the model, so it holds no secret and no internals.
    """


class OutcomeUnknown(ToolError):
    """Raised inside a tool when its call was on its way and it cannot tell whether it took effect."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a tool may know of the call it serves."""

    tool: str
    call_id: str
    task_id: str
    context: RunContext | None
    """The run, when there is one: tenant and user come from here, never from arguments that a model wrote."""

    @property
    def key(self) -> str:
        """Names the effect: the same after a crash and resume, another for every other call of every other run.

        The parts before the call's id hold no colon, so that no two calls share a key whatever ids a model makes up.
        """
        owner = f"{self.context.tenant}:{self.context.thread_id}" if self.context else "-:-"
        return f"{owner}:{self.task_id}:{self.call_id}"


_current: ContextVar[ToolCall] = ContextVar("slipway_tool_call")


def current_call() -> ToolCall:
    """The call that is being made, for functions that are not handed it. Raises LookupError outside a tool."""
    return _current.get()


@contextmanager
def being_made(call: ToolCall) -> Iterator[None]:
    """`current_call` gives `call` within."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


@dataclass(frozen=True, slots=True)
class Tool(Generic[A]):
    """A tool's declaration; everything that others decide on is in it."""

    name: str
    description: str
    """For the planner: what it gives and when to use it, in one or two sentences."""
    arguments: type[A]
    """Model of the arguments; its JSON schema is shown to the planner."""
    call: Callable[[A, ToolCall], Awaitable[ToolResult]]
    risk: Risk
    idempotent: bool
    """Whether the same call may run twice: it only reads, writes the same thing again, or hands `ToolCall.key` to a
    system that takes an idempotency key."""
    timeout_seconds: float = 30.0
    lookup: Callable[[A, ToolCall], Awaitable[ToolResult | None]] | None = None
    """Asks the outside system what became of the call, by its key; None: it did not happen. For a tool that is not
    idempotent: it is asked when a call was cut off, and the call is made again only if it did not happen. Whatever it
    raises means that it cannot tell."""
    details: Callable[[], Awaitable[str]] | None = None
    """What a planner must know beside the description and is known only at run time, such as a database's tables."""

    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments, without titles."""
        schema: dict[str, Any] = _untitled(self.arguments.model_json_schema())
        return schema


def _untitled(schema: Any) -> Any:
    """Pydantic titles each field with its own name: noise in a prompt."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # A property that is itself called `title` maps to a schema, not to a text.
    return {key: _untitled(part) for key, part in schema.items() if not (key == "title" and isinstance(part, str))}
