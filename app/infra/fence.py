"""The fence: each durable write of a worker carries (run, epoch) and is refused once a newer worker owns the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.exceptions

from app.infra.errors import StaleEpoch
from app.infra.ids import RunId
from app.infra.redis import Lua, script_text

_FENCE = Path(__file__).with_name("fence.lua").read_text()


@dataclass(frozen=True, slots=True)
class Fence:
    """A worker's claim on a run. `epoch` rises with each take-over; only the newest may write."""

    run_id: RunId
    epoch: int


class FencedLua:
    """A Lua script that runs only under the newest epoch.

    The script's own KEYS begin at 2 and its ARGV at 3: the fence takes the first places. A refused
    write raises `StaleEpoch`; nothing of the script has run then. Files named before the script's
    own hold functions that it shares with others.
    """

    def __init__(self, folder: Path, *names: str) -> None:
        self.name = names[-1]
        self._lua = Lua(_FENCE + script_text(folder, *names), name=self.name)

    async def __call__(self, redis_: Any, *, epochs: str, fence: Fence | None, keys: list[str], args: list[Any]) -> Any:
        """Run it for `fence`; None writes unfenced, which only maintenance outside any run may do."""
        held = ["", ""] if fence is None else [fence.run_id, str(fence.epoch)]
        try:
            return await self._lua(redis_, keys=[epochs, *keys], args=[*held, *args])
        except redis.exceptions.ResponseError as error:
            raise stale(error, fence) from error


def stale(error: redis.exceptions.ResponseError, fence: Fence | None) -> Exception:
    """The `StaleEpoch` that a reply `STALE …` means, or the error itself when it means something else."""
    text = str(error)
    if fence is None or not text.startswith("STALE "):
        return error
    current = text.removeprefix("STALE ").split()[0]
    return StaleEpoch(fence.run_id, fence.epoch, None if current == "-" else int(current))
