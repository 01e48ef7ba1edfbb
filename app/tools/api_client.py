"""The tools that call HTTP APIs of allowed hosts: `http_get` to read, `http_post` to change something."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.tools.guarded_http import Answer, GuardedHttp
from app.tools.tool import OutcomeUnknown, Risk, Source, Tool, ToolCall, ToolResult

_MARGIN_SECONDS: Final = 2.0
_FROM_A_GATEWAY: Final = frozenset({502, 504})
"""The API behind it may or may not have acted."""


class GetArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=2_000, description="Full URL, https://host/path?query.")


class PostArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=2_000, description="Full URL, https://host/path.")
    body: JsonValue = Field(description="What to send, as JSON.")


def http_tools(
    http: GuardedHttp, hosts: tuple[str, ...], *, timeout_seconds: float
) -> list[Tool[GetArguments] | Tool[PostArguments]]:
    """`http_get` and `http_post`. `data`: `status`, `content_type`, `truncated`, and `json` where the body is JSON."""
    allowed = f"Allowed hosts: {', '.join(hosts)}."

    async def get(arguments: GetArguments, _call: ToolCall) -> ToolResult:
        return _result(await http.request("GET", arguments.url, headers={"accept": "application/json, text/*"}))

    async def post(arguments: PostArguments, call: ToolCall) -> ToolResult:
        headers = {
            "accept": "application/json, text/*",
            "content-type": "application/json",
            "idempotency-key": idempotency_key(call),
        }
        content = json.dumps(arguments.body, ensure_ascii=False).encode()
        answer = await http.request("POST", arguments.url, headers=headers, content=content)
        if answer.status in _FROM_A_GATEWAY:
            raise OutcomeUnknown(f"a gateway answered HTTP {answer.status} in the place of the API")
        return _result(answer)

    return [
        Tool(
            name="http_get",
            description=f"Reads a URL and returns its text or JSON. {allowed}",
            arguments=GetArguments,
            call=get,
            risk=Risk.MEDIUM,
            idempotent=True,
            timeout_seconds=timeout_seconds + _MARGIN_SECONDS,
        ),
        Tool(
            name="http_post",
            description=f"Sends JSON to a URL, which may change something there. {allowed}",
            arguments=PostArguments,
            call=post,
            risk=Risk.HIGH,
            idempotent=False,
            timeout_seconds=timeout_seconds + _MARGIN_SECONDS,
        ),
    ]


def idempotency_key(call: ToolCall) -> str:
    """The call's key as an Idempotency-Key header: the same on a repeat; no tenant or thread can be read from it."""
    return hashlib.sha256(call.key.encode()).hexdigest()


def _result(answer: Answer) -> ToolResult:
    text = answer.body.decode("utf-8", errors="replace")
    data: dict[str, JsonValue] = {
        "status": answer.status,
        "content_type": answer.content_type,
        "truncated": answer.truncated,
    }
    if answer.content_type.endswith("json") and not answer.truncated:
        with suppress(ValueError):  # some say that it is JSON and it is not: then the text is all there is
            data["json"] = json.loads(text)
    note = "\n[cut: the answer goes on]" if answer.truncated else ""
    return ToolResult(
        ok=answer.status < 400,
        text=f"HTTP {answer.status} from {answer.url}\n{text}{note}",
        data=data,
        sources=[Source(title=answer.url, uri=answer.url)],
    )
