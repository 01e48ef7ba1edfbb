"""The one scenario that fences are for, without chance: a worker is frozen in the middle of a call, its run is taken
over and finished, and then it wakes up.

The same clients, recorders and checker as in a chaos run judge it.
"""

from __future__ import annotations

import asyncio
import signal

from app.infra.ids import RunId
from app.infra.keys import Keys
from tests.chaos.checker import Verdict, check
from tests.chaos.clients import Clients
from tests.chaos.cluster import Cluster, Member
from tests.chaos.collect import collect
from tests.chaos.expected import expect
from tests.chaos.history import History
from tests.chaos.outside import Effect
from tests.chaos.plan import Job, Plan, Step, Talk, Turn
from tests.support.waiting import eventually

LEASE_SECONDS = 1.0
_CALL_SECONDS = 1.5
"""How long the tool takes to answer after its effect: time enough to freeze the worker in between."""
_LAST_WORDS_SECONDS = 3.0
"""How long the woken worker is given to write what it should not."""


async def play(*, fence: bool) -> tuple[History, Verdict]:
    """The scenario's history and what the checker says of it; `fence` False with workers that have none."""
    job = Job("t0-0", (), (Step("charge", "w0", _CALL_SECONDS),), 0.0, 10, 0.01)
    plan = Plan(0, LEASE_SECONDS, (Talk("t0", 0.0, (Turn(job, "async", follow=True),)),), ())
    async with Cluster(workers=2, apis=1, lease=LEASE_SECONDS, fence=fence) as cluster:
        history = History(plan)
        frozen: list[Member] = []

        async def wake() -> None:
            """What a person does who is asked: first let the machine that went silent come to an end."""
            for member in frozen:
                member.send(signal.SIGCONT)
                history.note(f"{member.name} goes on")
            frozen.clear()
            await asyncio.sleep(LEASE_SECONDS)

        clients = Clients(history, cluster.urls, cluster.store, wake)
        try:
            asking = asyncio.create_task(clients.run())

            async def effects() -> list[Effect]:
                return cluster.store.effects()

            [effect] = await eventually(effects, until=bool)
            member = next(member for member in cluster.workers if member.pid == effect.pid)
            member.send(signal.SIGSTOP)
            history.note(f"{member.name} is frozen")
            frozen.append(member)
            await asking
            await wake()
            await _last_words(cluster, history)
            for run_id in history.turns["t0-0"].runs:
                await clients.look(history.turns["t0-0"], run_id)
        finally:
            await clients.close()
        await collect(history, cluster.valkey.url, cluster.store)
    history.expected["t0"] = await expect(plan.talks[0])
    return history, check(history)


async def _last_words(cluster: Cluster, history: History) -> None:
    """Until the woken worker has written an end of its own, or has had the time to."""
    run_id = history.turns["t0-0"].runs[0]
    with cluster.redis() as client:
        for _ in range(int(_LAST_WORDS_SECONDS / 0.1)):
            entries = client.xrange(Keys().events(RunId(run_id)))
            if sum(entry[b"e"] == b"end" for _, entry in entries) > 1:
                return
            await asyncio.sleep(0.1)
