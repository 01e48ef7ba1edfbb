"""Faults: hurts the cluster as the plan says, and puts right again what it hurt."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Literal

from tests.chaos.cluster import Cluster, Member
from tests.chaos.plan import Fault

_DRAIN_SECONDS = 20.0
_WHOLE_SECONDS = 1.0
_AIM_SECONDS = 1.0
"""Longest that an aimed fault waits for an effect."""


class Injector:
    """Carries out faults, several at a time where the plan wants it. `applied` counts those that met a process."""

    def __init__(self, cluster: Cluster, note: Callable[[str], None]) -> None:
        self._cluster, self._note = cluster, note
        self._tasks: set[asyncio.Task[None]] = set()
        self._redis = asyncio.Lock()
        self.applied = 0
        self.kinds: dict[str, int] = {}
        self.restart: Literal["orderly", "kill"] = "orderly"
        """How the Valkey is restarted: what its AOF policy promises to survive."""

    async def run(self, faults: tuple[Fault, ...], started: float) -> None:
        """All of them, each at its moment after `started` (monotonic); returns when everything is whole again."""
        for fault in faults:
            await asyncio.sleep(max(0.0, started + fault.at - time.monotonic()))
            self._begin(fault)
        await self.settle()

    def _begin(self, fault: Fault) -> None:
        task = asyncio.create_task(self.apply(fault))
        self._tasks.add(task)

    async def settle(self) -> None:
        """Wait for the faults under way. Raises what one of them failed with: a process that does not come back."""
        while self._tasks:
            done, self._tasks = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    def failed(self) -> BaseException | None:
        """What a fault under way has failed with, if any."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    async def calm(self) -> None:
        """Until each worker has been whole for a second, or is another process: what it had under way has happened."""

        def may_act(member: Member, pid: int) -> bool:
            return member.pid == pid and (member.hurt or time.monotonic() - member.healed < _WHOLE_SECONDS)

        asked = [(member, member.pid) for member in self._cluster.workers]
        while [member for member, pid in asked if may_act(member, pid)]:
            asked = [(member, pid) for member, pid in asked if may_act(member, pid)]
            await asyncio.sleep(0.05)

    async def apply(self, fault: Fault) -> None:
        """One fault, and what puts it right."""
        if fault.kind in ("restart", "stall"):
            await self._hurt_redis(fault)
            return
        member = await self._target(fault)
        self._count(fault, member.name)
        match fault.kind:
            case "kill" | "kill-api":
                await self._replace(member, signal.SIGKILL, fault.seconds)
            case "drain" | "drain-api":
                await self._replace(member, signal.SIGTERM, fault.seconds)
            case "freeze" | "freeze-api":
                await self._freeze(member, fault.seconds)
            case "isolate":
                await self._isolate(member, fault.seconds)
            case "cut":
                assert member.proxy is not None
                member.proxy.cut()
            case "lose":
                await self._lose(member, fault.seconds)
            case "clock":
                await asyncio.to_thread(member.clock.write_text, str(fault.seconds))
                member.send(signal.SIGUSR1)

    async def _target(self, fault: Fault) -> Member:
        """Who is hurt: one that is up and whole, or else whoever is so next."""
        if fault.kind.endswith("-api"):
            pool = self._cluster.apis
        elif fault.kind in ("cut", "lose"):
            pool = self._cluster.members
        else:
            pool = self._cluster.workers
        aimed = await self._at_its_effect() if fault.aimed else None
        while aimed is None:
            whole = [member for member in pool if member.up and not member.hurt]
            if whole:
                return whole[int(fault.who * len(whole))]
            await asyncio.sleep(0.02)
        return aimed

    async def _at_its_effect(self) -> Member | None:
        """The worker that makes the next effect, at that moment; None when none comes soon."""
        until, (before, _) = time.monotonic() + _AIM_SECONDS, self._cluster.store.newest()
        while time.monotonic() < until:
            newest, pid = self._cluster.store.newest()
            if newest != before:
                for member in self._cluster.workers:
                    if member.pid == pid and member.up and not member.hurt:
                        return member
            await asyncio.sleep(0.01)
        return None

    async def _lose(self, member: Member, seconds: float) -> None:
        """Lose a reply, and in that time every one that follows the connection's return."""
        assert member.proxy is not None
        until = time.monotonic() + seconds
        while True:
            member.proxy.lose_next_reply()
            if time.monotonic() > until:
                return
            await asyncio.sleep(0.05)

    async def _replace(self, member: Member, sign: signal.Signals, pause: float) -> None:
        member.up = False
        pid = member.pid
        member.send(sign)
        try:
            await member.gone(_DRAIN_SECONDS)
        except TimeoutError:
            text = f"{member.name} (pid {pid}) did not end {_DRAIN_SECONDS:g} s after {sign.name}"
            raise RuntimeError(text) from None
        await asyncio.sleep(pause)
        member.start()
        await member.wait()
        self._note(f"{member.name} is back as pid {member.pid}")

    async def _freeze(self, member: Member, seconds: float) -> None:
        member.hurt = True
        member.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        member.send(signal.SIGCONT)
        self._healed(member)

    async def _isolate(self, member: Member, seconds: float) -> None:
        assert member.proxy is not None
        member.hurt = True
        member.proxy.hold()
        await asyncio.sleep(seconds)
        member.proxy.let_go()
        self._healed(member)

    def _healed(self, member: Member) -> None:
        member.hurt, member.healed = False, time.monotonic()
        self._note(f"{member.name} goes on")

    async def _hurt_redis(self, fault: Fault) -> None:
        async with self._redis:
            valkey = self._cluster.valkey
            if fault.kind == "stall":
                self._count(fault, "valkey")
                valkey.freeze()
                await asyncio.sleep(fault.seconds)
                valkey.thaw()
                self._note("valkey goes on")
                return
            self._count(fault, f"valkey, {self.restart}")
            await asyncio.to_thread(valkey.stop if self.restart == "orderly" else valkey.kill)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(valkey.start)
            self._note("valkey is back")

    def _count(self, fault: Fault, who: str) -> None:
        self.applied += 1
        self.kinds[fault.kind] = self.kinds.get(fault.kind, 0) + 1
        self._note(f"fault {fault.number}: {fault.kind} {who} {fault.seconds:.2f}")
