"""The readiness checks of an api process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from app.api.readiness import Check, Readiness
from app.infra.keys import Keys
from app.infra.settings import Settings
from app.models.reachability import reachable

_PROBE_SECONDS = 60


@contextlib.asynccontextmanager
async def readiness_checks(settings: Settings, redis: Any) -> AsyncIterator[Readiness]:
    """Redis (required), Qdrant and the model endpoint (something stands in for them); one HTTP client for all."""
    async with httpx.AsyncClient(timeout=1.0) as client:

        async def redis_takes_writes() -> bool:
            # A full Redis, or a replica, answers PING and refuses every run.
            return bool(await redis.set(Keys().probe, b"1", ex=_PROBE_SECONDS))

        async def model_answers() -> bool:
            return await reachable(settings.models, client)

        optional: dict[str, Check] = {"model": model_answers}
        if settings.tools.qdrant_url is not None:
            address = f"{settings.tools.qdrant_url.rstrip('/')}/readyz"

            async def qdrant_answers() -> bool:
                return (await client.get(address)).status_code == 200

            optional["qdrant"] = qdrant_answers
        yield Readiness(required={"redis": redis_takes_writes}, optional=optional)
