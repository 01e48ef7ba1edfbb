"""The local vector store: one process that owns a folder and answers the part of Qdrant's REST API that Slipway uses.

    python -m components.local.vector_store --path DIR --port N [--host 127.0.0.1]

It keeps the vectors with Qdrant Edge (the engine of Qdrant, embedded) and is for one machine. The service speaks to it
through the ordinary Qdrant client, so a real Qdrant is a change of QDRANT_URL and nothing else. Anything that it does
not know is refused with 501. With QDRANT__SERVICE__API_KEY set, callers must present that key.

What survives: a write is answered once it is on disk, so neither SIGKILL nor a power cut loses what was answered.
DIR/lock keeps a second process out. All work on shards runs in one thread, one request at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hmac
import importlib.metadata
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import qdrant_edge as edge
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from components.local.vector_collections import (
    COLLECTION_ROUTES,
    Collection,
    Collections,
    Missing,
    Taken,
)
from components.local.vector_wire import API_VERSION, BadRequest, Json, Unsupported

API_KEY_VARIABLE: Final = "QDRANT__SERVICE__API_KEY"
_MAX_BODY_BYTES: Final = 32 * 1024 * 1024  # Qdrant's own limit


class Server:
    """The HTTP side: reads a request, has it done in the one working thread, writes Qdrant's kind of answer."""

    def __init__(self, root: Path, api_key: str | None) -> None:
        self._root, self._api_key = root, api_key
        self._thread = ThreadPoolExecutor(1, "shards")
        self._collections: Collections | None = None
        self._flushing: asyncio.Future[None] | None = None

    def app(self) -> Starlette:
        open_to_all = [
            Route("/", self._title),
            *(Route(path, _well) for path in ("/healthz", "/readyz", "/livez")),
        ]
        answered = [
            self._route("GET", "/collections", lambda all_, _n, _b: _names(all_)),
            self._route("GET", "/collections/{name}/exists", lambda all_, name, _: {"exists": all_.exists(name)}),
            self._route("PUT", "/collections/{name}", lambda all_, name, body: all_.create(name, body)),
            self._route("DELETE", "/collections/{name}", lambda all_, name, _: all_.delete(name)),
            *(self._of_collection(*route) for route in COLLECTION_ROUTES),
            Route("/collections/{name}/index/{field:path}", self._drop_index, methods=["DELETE"]),
        ]
        rest = Route("/{path:path}", self._unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
        return Starlette(routes=[*open_to_all, *answered, rest], lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        self._collections = await loop.run_in_executor(self._thread, Collections, self._root)
        try:
            yield
        finally:
            await loop.run_in_executor(self._thread, self._collections.close)
            self._thread.shutdown()

    async def _written(self) -> None:
        """Return when all that was written is on disk. Writers that wait for the thread share one flush."""
        if not self._all().unflushed():
            return
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().run_in_executor(self._thread, self._flush)
        await asyncio.shield(self._flushing)

    def _flush(self) -> None:
        self._flushing = None  # begun: whoever writes from here on needs another one
        self._all().flush()

    def _all(self) -> Collections:
        if self._collections is None:
            raise RuntimeError("the folder is not open yet")
        return self._collections

    def _route(self, method: str, path: str, work: Callable[[Collections, str, Any], Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await self._answer(
                request, lambda body: work(self._all(), request.path_params.get("name", ""), body)
            )

        return Route(path, endpoint, methods=[method])

    def _of_collection(self, method: str, path: str, work: Callable[[Collection, Any], Any]) -> Route:
        return self._route(method, f"/collections/{{name}}{path}", lambda all_, name, body: work(all_.find(name), body))

    async def _drop_index(self, request: Request) -> Response:
        name, field = request.path_params["name"], request.path_params["field"]
        return await self._answer(
            request, lambda _: self._all().find(name).update(edge.UpdateOperation.delete_field_index(field))
        )

    async def _unknown(self, request: Request) -> Response:
        def refuse(_body: Any) -> Any:
            raise Unsupported(f"the local vector store does not answer {request.method} {request.url.path}")

        return await self._answer(request, refuse)

    async def _title(self, _request: Request) -> Response:
        version = importlib.metadata.version("qdrant-edge-py")
        return _json({"title": f"Slipway local vector store (Qdrant Edge {version})", "version": API_VERSION})

    async def _answer(self, request: Request, work: Callable[[Any], Any]) -> Response:
        begun = time.perf_counter()
        status, outcome = await self._outcome(request, work)
        envelope = {"result": outcome, "status": "ok"} if status == 200 else {"status": {"error": outcome}}
        return _json({**envelope, "time": time.perf_counter() - begun}, status)

    async def _outcome(self, request: Request, work: Callable[[Any], Any]) -> tuple[int, Any]:
        """HTTP status, and the result or the text of the error."""
        if not self._may(request):
            return 401, "Must provide an API key or an Authorization bearer token"
        try:
            body = await _body(request)
            result = await asyncio.get_running_loop().run_in_executor(self._thread, work, body)
            await self._written()
            return 200, result
        except Missing as error:
            return 404, str(error)
        except Taken as error:
            return 409, str(error)
        except Unsupported as error:
            return 501, str(error)
        except (BadRequest, ValueError, TypeError) as error:
            return 400, f"Wrong input: {error}"
        except Exception as error:
            # Qdrant Edge raises bare `Exception`, for a wrong request as for its own failure; the text tells which.
            text = str(error)
            if text.startswith("No point with id"):
                return 404, f"Not found: {text}"
            return (500 if text.startswith(_OWN_FAILURES) else 400), text

    def _may(self, request: Request) -> bool:
        if self._api_key is None:
            return True
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = request.headers.get("api-key", bearer)
        return hmac.compare_digest(given.encode(), self._api_key.encode())


_OWN_FAILURES: Final = ("Service", "Out of memory", "Timeout", "Operation", "IO", "Io", "Inconsistent")


def _names(collections: Collections) -> Json:
    return {"collections": [{"name": name} for name in collections.names()]}


async def _body(request: Request) -> Any:
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > _MAX_BODY_BYTES:
            raise BadRequest(f"the body is over {_MAX_BODY_BYTES} bytes")
    return orjson.loads(received) if received else None


async def _well(_request: Request) -> Response:
    return PlainTextResponse("healthz check passed")


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


# The process


@contextmanager
def sole_owner(root: Path) -> Iterator[None]:
    """Hold the folder for this process alone; ends the process when another one holds it."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (root / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another process owns {root}: stop it, or name another folder with --path")
        yield


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="vector_store", description="A small Qdrant for one machine.")
    parser.add_argument("--path", type=Path, required=True, help="folder that holds the vectors; made if missing")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    given = parser.parse_args(arguments)
    api_key = os.environ.get(API_KEY_VARIABLE) or None
    if api_key is None and given.host not in ("127.0.0.1", "::1", "localhost"):
        sys.exit(f"--host {given.host} is open to others: set {API_KEY_VARIABLE} as well, or listen on 127.0.0.1")
    with sole_owner(given.path):
        uvicorn.run(
            Server(given.path, api_key).app(),
            host=given.host,
            port=given.port,
            loop="asyncio",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=5,
        )


if __name__ == "__main__":
    main()
