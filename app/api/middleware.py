"""The outermost layer: gives each request its id, bounds its body, logs one line for it, leaves no error unanswered."""

from __future__ import annotations

import re
import time

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.infra.ids import new_id
from app.infra.logging import get_logger

_log = get_logger(__name__)
_REQUEST_ID = re.compile(rb"^[A-Za-z0-9_.-]{8,64}$")
SILENT = ("/healthz", "/readiness")
"""Asked every few seconds; their log lines and spans would bury the others."""


class RequestScope:
    """Takes over the caller's or the proxy's `X-Request-Id` when it is well formed, else makes one; answers with it.

    A body of more than `max_body_bytes` is a 413 problem. (Starlette's own limiter answers with plain text.)
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app, self._max_body_bytes = app, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if _REQUEST_ID.match(given) else new_id()
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        started, status, received = time.perf_counter(), 0, 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if max(received, int(announced) if announced.isdigit() else 0) > self._max_body_bytes:
                raise HTTPException(413)
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive_bounded, send_with_id)
            except Exception as error:  # the last place that can answer: its text must not reach client or log
                _log.error("request failed", exc_info=error)
                if status:
                    return  # the answer had begun: cutting it off is all that is left
                await problems.response(
                    500, "internal", "the request failed; report its id to whoever runs the service"
                )(scope, receive, send_with_id)
            finally:
                route = scope.get("route")
                path = getattr(route, "path", "unmatched")
                if path not in SILENT:
                    milliseconds = round((time.perf_counter() - started) * 1000, 1)
                    _log.info("request", method=scope["method"], route=path, status=status, ms=milliseconds)
