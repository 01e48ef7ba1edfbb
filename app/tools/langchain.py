"""Tools of LangChain in this registry, and this registry's tools in a graph that calls tools in LangChain's way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jsonschema
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.prebuilt import ToolRuntime
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, to_jsonable_python

from app.infra.context import RunContext
from app.tools.registry import ToolRegistry
from app.tools.tool import Risk, Tool, ToolCall, ToolError, ToolResult


def from_langchain(
    tool: BaseTool, *, risk: Risk = Risk.HIGH, idempotent: bool = False, timeout_seconds: float = 30.0
) -> Tool[BaseModel]:
    """`tool` as one of the registry's. Without a word on its risk it is HIGH and not to be repeated.

    Its function learns the call, and the key that a repetition bears too, from `app.tools.tool.current_call`. Its
    `ToolException` says that nothing happened. A synchronous function runs in a thread, which goes on when its time is
    up: give it more time than it can need. Arguments that LangGraph injects (state, store, runtime) are not passed
    on; `langgraph.runtime.get_runtime` and `langgraph.config.get_store` give them inside it.
    """

    async def call(arguments: BaseModel, _call: ToolCall) -> ToolResult:
        given = arguments.model_dump(exclude_unset=True)
        try:
            output = await tool.ainvoke(given)
        except ToolException as failure:
            raise ToolError(str(failure)) from failure
        return _result(output)

    return Tool(
        name=tool.name,
        description=tool.description,
        arguments=_arguments(tool),
        call=call,
        risk=risk,
        idempotent=idempotent,
        timeout_seconds=timeout_seconds,
    )


def to_langchain(registry: ToolRegistry, names: Iterable[str] | None = None) -> list[BaseTool]:
    """The registry's tools, or those named, for a `ToolNode`, an agent or a model's `bind_tools`.

    Each call goes through the registry: checked, in the effect journal, and stopped for a person where its outcome is
    unknown. They run inside a ToolNode only, which tells them the call's id. Raises KeyError for an unknown name.
    """
    return [_offered(registry, name) for name in (registry.names() if names is None else names)]


def _offered(registry: ToolRegistry, name: str) -> BaseTool:
    tool = registry.get(name)
    if tool is None:
        raise KeyError(name)

    async def call(runtime: ToolRuntime, **given: Any) -> tuple[str, dict[str, Any]]:
        info = runtime.execution_info
        result = await registry.invoke(
            name,
            given,
            call_id=runtime.tool_call_id or "",
            task_id="" if info is None else info.task_id,
            context=runtime.context if isinstance(runtime.context, RunContext) else None,
        )
        if not result.ok:
            raise ToolException(result.text)
        return result.text, result.model_dump(mode="json", include={"data", "sources"})

    return StructuredTool(
        name=name,
        description=tool.description,
        args_schema=tool.schema(),
        coroutine=call,
        response_format="content_and_artifact",
        handle_tool_error=True,  # a failed call is an answer for the model
    )


def _arguments(tool: BaseTool) -> type[BaseModel]:
    schema = tool.tool_call_schema
    if isinstance(schema, dict):
        return _from_json_schema(tool.name, schema)
    if not issubclass(schema, BaseModel):
        raise TypeError(f"the arguments of {tool.name} are declared with pydantic 1; declare them with pydantic 2")
    return schema


def _from_json_schema(name: str, schema: dict[str, Any]) -> type[BaseModel]:
    """A model that takes what `schema` takes; tools that come over MCP declare their arguments so."""
    validator = jsonschema.validators.validator_for(schema)(schema)

    class Arguments(BaseModel):
        model_config = ConfigDict(extra="allow")

        @model_validator(mode="before")
        @classmethod
        def _fits(cls, value: Any) -> Any:
            error = jsonschema.exceptions.best_match(validator.iter_errors(value))
            if error is not None:
                raise ValueError(error.message)
            return value

        @classmethod
        def __get_pydantic_json_schema__(cls, _core: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
            return schema

    Arguments.__name__ = name
    return Arguments


def _result(output: Any) -> ToolResult:
    if isinstance(output, str):
        return ToolResult(ok=True, text=output)
    # Whatever it is, the call has been made: no error may come of writing it down.
    data = to_jsonable_python(output, fallback=str, inf_nan_mode="strings")
    return ToolResult(ok=True, text=str(output), data={"output": data})
