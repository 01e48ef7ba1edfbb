"""Errors as RFC 9457 problem details: a kind, a title, a status, what to do, and the id that the log names.

No exception's text reaches a client unless it is one of ours (`SlipwayError`), which hold no secret.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app.infra.errors import Conflict, NotFound, SlipwayError, Unavailable
from app.infra.logging import get_logger

_log = get_logger(__name__)

_NAME_CHARS = 64
"""Of a field's name as the client wrote it, how much is said back; ours are shorter."""

_TITLES = {
    400: "The request cannot be read",
    401: "An API key is needed",
    403: "This key may not do that",
    404: "Not found",
    405: "This address does not take that method",
    409: "The state of the thing does not allow that",
    413: "The request is too large",
    415: "The request is not JSON",
    422: "The request is not valid",
    429: "Too many requests",
    500: "Something failed on our side",
    502: "A service that the agent needs failed",
    503: "Not ready at the moment",
    504: "The run took too long",
}


class Problem(BaseModel):
    """The body of every error, as `application/problem+json`."""

    type: str = Field(
        description="Kind of problem, as a URN that stays the same.", examples=["urn:slipway:problem:run-not-found"]
    )
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What is wrong and what to do about it.")
    id: str = Field(description="Names this request in the service's log.")


class ProblemError(Exception):
    """Answer with this problem. For errors of HTTP itself; the rooms below raise `SlipwayError`s."""

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.headers, self.extra = status, kind, detail, headers, extra


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: which problems it may answer with."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _TITLES[status], "content": content} for status in statuses}


def request_id() -> str:
    """The id bound to the request under way."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def response(
    status: int,
    kind: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """The answer. Logs the id, the kind and the status; never what was sent."""
    log = _log.error if status >= 500 and status != 503 else _log.info
    log("request refused", kind=kind, status=status)
    body = {
        "type": f"urn:slipway:problem:{kind}",
        "title": _TITLES.get(status, "The request failed"),
        "status": status,
        "detail": detail,
        "id": request_id(),
        **(extra or {}),
    }
    return Response(
        orjson.dumps(body), status_code=status, headers=dict(headers or {}), media_type="application/problem+json"
    )


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem."""
    handlers: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
        ProblemError: _problem,
        SlipwayError: _slipway,
        RequestValidationError: _validation,
        HTTPException: _http,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _problem(_: Request, error: ProblemError) -> Response:
    return response(error.status, error.kind, error.detail, headers=error.headers, extra=error.extra)


async def _slipway(_: Request, error: SlipwayError) -> Response:
    kind = _kind(type(error))
    if isinstance(error, NotFound):
        return response(404, kind, str(error))
    if isinstance(error, Conflict):
        return response(409, kind, str(error))
    if isinstance(error, Unavailable):
        return response(503, kind, str(error), headers={"Retry-After": str(error.retry_after)})
    return response(500, "internal", "the request failed; report its id to whoever runs the service")


async def _validation(request: Request, error: RequestValidationError) -> Response:
    found = error.errors()
    if any(problem["type"] == "json_invalid" for problem in found):
        return response(400, "malformed-json", "the body is not JSON; send one JSON object")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method in ("POST", "PUT", "PATCH") and media_type and not media_type.endswith("json"):
        return response(415, "not-json", "send the body with content-type: application/json")
    # What was sent is left out on purpose: it may be long, and it may be private. So is the end of a field's name.
    places = [
        {"at": ".".join(str(part)[:_NAME_CHARS] for part in problem["loc"]), "problem": problem["msg"]}
        for problem in found[:20]
    ]
    detail = "; ".join(f"{place['at']}: {place['problem']}" for place in places)
    return response(422, "invalid", detail, extra={"errors": places})


async def _http(_: Request, error: HTTPException) -> Response:
    details = {
        400: "the body cannot be read as UTF-8 JSON",
        404: "there is nothing at this address; /docs lists all of them",
        405: "use another method; /docs lists all of them",
        413: "send less: MAX_BODY_BYTES is the limit of this service",
    }
    kinds = {400: "unreadable", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}
    status = error.status_code
    return response(
        status,
        kinds.get(status, "refused"),
        details.get(status, "the request was refused"),
        headers=error.headers,
    )


def _kind(error: type[SlipwayError]) -> str:
    """RunNotFound -> run-not-found."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in error.__name__).lstrip("-")
