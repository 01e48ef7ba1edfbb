"""A worker process dies or freezes in the middle of a payment; another takes over, and a person says what happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx

from tests.support.service import ROOT, Service
from tests.support.waiting import eventually

ANSWER = "paid, says the bank"


def lines(book: Path) -> list[str]:
    """The payments so far, each `<pid> <to>`."""
    return book.read_text().splitlines() if book.exists() else []


async def test_a_payment_is_made_once_and_its_run_ends_with_what_a_person_said(tmp_path: Path) -> None:
    """Nobody can tell whether it went through: it is not repeated, and the worker that wakes up changes nothing."""
    book = tmp_path / "payments"
    env = {
        "LANGGRAPH_CONFIG": str(ROOT / "tests/support/paying.json"),
        "DEFAULT_GRAPH": "paying",
        "LEASE_SECONDS": "1",
        "PAYMENTS": str(book),
    }
    with Service(workers=3, env=env) as service:
        async with service.client() as client:
            _, first = await _paid_once(client, book, "ann", signal.SIGKILL)
            pid, second = await _paid_once(client, book, "bob", signal.SIGSTOP)
            [frozen] = [worker for worker in service.workers if worker.pid == pid]
            book.with_suffix(".hold").unlink()
            frozen.send(signal.SIGCONT)
            frozen.wait_for("run has a newer owner")
            assert [line.split()[1] for line in lines(book)] == ["ann", "bob"]
            for message, thread_id in (("ann", first), ("bob", second)):
                thread = (await client.get(f"/threads/{thread_id}/history")).json()
                assert [part["content"] for part in thread["messages"]] == [message, ANSWER]


async def _paid_once(client: httpx.AsyncClient, book: Path, message: str, sign: signal.Signals) -> tuple[int, str]:
    """Ask for a payment, send `sign` to the worker that makes it, and answer what is asked. Gives that worker's
    pid and the thread."""
    book.with_suffix(".hold").touch()
    begun = (await client.post("/chat/async", json={"message": message})).json()

    async def payments() -> list[str]:
        return [line for line in lines(book) if line.endswith(message)]

    async def run() -> dict[str, Any]:
        found: dict[str, Any] = (await client.get(f"/runs/{begun['run_id']}")).json()
        return found

    [payment] = await eventually(payments, until=bool)
    pid = int(payment.split()[0])
    os.kill(pid, sign)
    asked = await eventually(run, until=lambda run: run["status"] not in ("pending", "running"))
    assert asked["status"] == "interrupted", asked
    [question] = asked["result"]["interrupts"]
    [call] = question["value"]["calls"]
    assert (question["value"]["kind"], call["call_id"], call["args"]) == ("effect_unknown", "c1", {"to": message})
    answer = {"thread_id": begun["thread_id"], "resume": {"c1": {"decision": "done", "result": ANSWER}}}
    answered = (await client.post("/chat", json=answer)).json()
    assert answered["answer"] == ANSWER, answered
    assert await payments() == [payment]
    return pid, str(begun["thread_id"])
