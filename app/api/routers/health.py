"""GET /healthz (the process lives), GET /readiness (it can do its work)."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request, Response

from app.api.readiness import Readiness

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 while the process answers. Asks nobody else: a sick Redis is no reason to restart an api."""
    return {"status": "ok"}


@router.get("/readiness", responses={503: {"description": "Redis does not answer: requests would be refused."}})
async def readiness(request: Request) -> Response:
    """Whether requests can be served: each dependency with its state.

    503 only for what nothing can stand in for (Redis). Without Qdrant search goes by word, and while the model does
    not answer runs are accepted and retried: both are `degraded` with 200.
    """
    checks: Readiness = request.app.state.readiness
    report = await checks.report()
    return Response(
        orjson.dumps(report),
        status_code=503 if report["status"] == "unavailable" else 200,
        media_type="application/json",
        headers={"Retry-After": "2"} if report["status"] == "unavailable" else {},
    )
