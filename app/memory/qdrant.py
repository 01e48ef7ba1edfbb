"""Access to Qdrant: one way to open it, one kind of error when it is away.

The client library takes 60 MB: it is imported on first use, so that a process that touches no vectors stays light.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from app.infra.errors import Unavailable
from app.infra.settings import Settings

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

_TIMEOUT_SECONDS: Final = 5
_KEPT_CONNECTIONS: Final = 16


def open_qdrant(settings: Settings) -> AsyncQdrantClient | None:
    """A client for QDRANT_URL that connects on first use; None where none is configured."""
    if settings.tools.qdrant_url is None:
        return None
    import httpx
    from qdrant_client import AsyncQdrantClient

    key = settings.tools.qdrant_api_key
    with warnings.catch_warnings():
        # It warns of a key over plain HTTP, which is what the local store on loopback takes.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        return AsyncQdrantClient(
            url=settings.tools.qdrant_url,
            api_key=None if key is None else key.get_secret_value(),
            timeout=_TIMEOUT_SECONDS,
            check_compatibility=False,  # it would ask the server from a thread of its own, at once
            # Without limits it opens a connection per request to a local server.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=_KEPT_CONNECTIONS),
        )


@contextmanager
def outages() -> Iterator[None]:
    """Turn the client's errors into `Unavailable`; a 404 stays what it is (see `is_missing`)."""
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    fix = "check QDRANT_URL and QDRANT_API_KEY, and that Qdrant is up"
    try:
        yield
    except ResponseHandlingException as error:
        raise Unavailable("Qdrant does not answer", fix=fix) from error
    except UnexpectedResponse as error:
        if error.status_code == 404:
            raise
        raise Unavailable(f"Qdrant refused a request with {error.status_code}", fix=fix) from error


def is_missing(error: BaseException) -> bool:
    """Whether Qdrant said that the collection is not there."""
    return getattr(error, "status_code", None) == 404


def collection_name(kind: str, *parts: str) -> str:
    """`kind` and `parts` in one name that Qdrant takes: letters, digits, `_`, `.`, `-`."""
    return "-".join(re.sub(r"[^A-Za-z0-9_.-]+", "_", part) for part in (kind, *parts))
