"""POST /chat (waits for the answer), POST /chat/async (202 at once)."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Response

from app.api.dependencies import CallerDep, IdempotencyKey, Parts
from app.api.problems import problems
from app.api.start import ChatRequest, LaterChatRequest, answer, refuse_failed, start
from app.api.views import Answer, RunView

router = APIRouter(tags=["chat"])
_PROBLEMS = problems(400, 401, 404, 409, 413, 422, 503)


@router.post(
    "/chat",
    response_model=Answer,
    responses={
        202: {"model": RunView, "description": "It takes longer; read the run."},
        **_PROBLEMS,
        **problems(500, 502, 504),
    },
)
async def chat(asked: ChatRequest, api: Parts, caller: CallerDep, idempotency_key: IdempotencyKey = None) -> Response:
    """Say something to the agent and wait for its answer.

    The run goes on when the connection ends. After CHAT_TIMEOUT_SECONDS the answer is 202 with the run to read.
    """
    run_id, result = await answer(api, caller, asked, idempotency_key)
    if result is None:
        return _accepted(RunView.of(await api.ledger.get(run_id)))
    refuse_failed(result)
    return Response(orjson.dumps(result), media_type="application/json")


@router.post("/chat/async", status_code=202, response_model=RunView, responses=_PROBLEMS)
async def chat_async(
    asked: LaterChatRequest, api: Parts, caller: CallerDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """Say something to the agent; answers as soon as the run is written down. Read it at /runs/{run_id}."""
    accepted = await start(api, caller, asked, idempotency_key)
    return _accepted(RunView.of(await api.ledger.get(accepted.run_id)))


def _accepted(view: RunView) -> Response:
    return Response(
        view.model_dump_json(),
        status_code=202,
        media_type="application/json",
        headers={"Location": f"/runs/{view.run_id}"},
    )
