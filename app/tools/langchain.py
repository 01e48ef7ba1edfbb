"""Tools of LangChain in this registry: what a user's own graph already has, under the same gate and journal."""

from __future__ import annotations

from typing import Any

import jsonschema
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, JsonValue, model_validator
from pydantic_core import CoreSchema

from app.tools.tool import Risk, Tool, ToolCall, ToolResult


def from_langchain(
    tool: BaseTool, *, risk: Risk = Risk.HIGH, idempotent: bool = False, timeout_seconds: float = 30.0
) -> Tool[BaseModel]:
    """`tool` as one of the registry's. Without a word on its risk it is HIGH and not to be repeated.

    Arguments that LangGraph injects (state, store, runtime) are not passed on.
    """

    async def call(arguments: BaseModel, _call: ToolCall) -> ToolResult:
        given = arguments.model_dump(exclude_unset=True)
        return _result(await tool.ainvoke(given))

    return Tool(
        name=tool.name,
        description=tool.description,
        arguments=_arguments(tool),
        call=call,
        risk=risk,
        idempotent=idempotent,
        timeout_seconds=timeout_seconds,
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
    data: JsonValue = output if isinstance(output, dict | list | int | float | bool | None) else str(output)
    return ToolResult(ok=True, text=str(output), data={"output": data})
