"""Whether a process of the service lives, asked from beside it: an api by HTTP, a worker by the file it touches."""

from __future__ import annotations

import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from app.infra.settings import ServiceSettings

TOUCH_SECONDS = 5.0
"""How often a worker touches its file, from its event loop: a blocked loop shows."""
_SICK_AFTER_SECONDS = 30.0
_ANSWER_SECONDS = 3.0


def worker_file(service: ServiceSettings) -> Path:
    """The file of this machine's worker of a release."""
    return Path(tempfile.gettempdir()) / f"slipway-worker-{service.release}"


def lives(process: str, service: ServiceSettings) -> bool:
    """True when the `api` answers /healthz, or the `worker` has touched its file of late."""
    if process == "worker":
        try:
            return time.time() - worker_file(service).stat().st_mtime < _SICK_AFTER_SECONDS
        except FileNotFoundError:
            return False
    host = "127.0.0.1" if service.host in ("0.0.0.0", "::") else service.host  # noqa: S104 - compared, not bound
    try:
        with urllib.request.urlopen(f"http://{host}:{service.port}/healthz", timeout=_ANSWER_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
