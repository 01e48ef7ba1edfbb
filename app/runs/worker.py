"""The worker: claims due runs of its release, executes up to WORKER_SLOTS at a time, and leaves without losing one.

On SIGTERM it claims nothing more, asks each graph to stop at its next step, and gives the runs back; they go on
elsewhere from their last checkpoint. What does not stop within DRAIN_SECONDS is cut off and given back all the same.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import structlog
from langgraph.errors import GraphDrained
from langgraph.pregel import Pregel
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from app.infra import telemetry
from app.infra.errors import RedisUnavailable, StaleEpoch
from app.infra.ids import RunId
from app.infra.keys import Keys
from app.infra.logging import get_logger
from app.infra.redis import connect, outages
from app.infra.retries import is_transient, pause_after
from app.memory.checkpoints import CheckpointDamaged
from app.runs.encoding import encode, plain
from app.runs.events import EventWriter
from app.runs.execution import Execution, Outcome, Services, undo
from app.runs.heartbeat import Heartbeat
from app.runs.ledger import Claims, RunLedger, stopped
from app.runs.model import STOPS, Claim, Failure, Run, Status, Stop

_log = get_logger(__name__)

_LONGEST_SLEEP_SECONDS = 10.0
"""An idle worker looks at the queue this often without being woken: what a lost wake-up costs at most."""
_RECONNECT_SECONDS = 0.5
_STOPPING = "the worker is stopping"
_CANCEL_AGAIN_SECONDS = 0.25
_STOP_SECONDS = 5.0
"""How long a graph that is to stop is waited for; its run is over or elsewhere by then, and the fence holds it off."""
_GIVE_BACK_SECONDS = 30.0
"""How long a run is offered back while Redis is away; after that its lease ends by itself."""


class _Ending(StrEnum):
    """Why an attempt is ended from outside, beside how its run was asked to stop."""

    STALE = "stale"
    """A newer worker owns the run, or it is over."""
    DRAIN = "drain"
    """The worker is stopping and cannot wait any longer."""
    TIMEOUT = "timeout"


@dataclass(slots=True)
class _Held:
    """A run under way in this process."""

    claim: Claim
    task: asyncio.Task[None]
    """The attempt: drives the graph's own task, and alone writes how it ended."""
    ending: asyncio.Future[_Ending | Stop]
    """Set when the graph is to be stopped: the first reason counts."""
    execution: Execution | None = None


class Worker:
    """Executes runs of one release. `graphs` gives the graph of a name, or raises KeyError."""

    def __init__(
        self, ledger: RunLedger, services: Services, graphs: Callable[[str], Pregel[Any, Any, Any, Any]]
    ) -> None:
        self._ledger, self._services, self._graphs = ledger, services, graphs
        self._keys: Keys = services.keys
        self._settings = services.settings
        self.id = uuid.uuid4().hex
        self._held: dict[RunId, _Held] = {}
        self._unstoppable: set[asyncio.Task[Outcome]] = set()
        """Graphs that go on although they were cancelled; each keeps its slot."""
        self._stopping = asyncio.Event()
        self._freed = asyncio.Event()
        url = services.settings.redis.url.get_secret_value()
        self._heartbeat = Heartbeat(
            url,
            self._keys,
            ledger.release,
            lease_seconds=self._settings.runs.lease_seconds,
            on_state=self._on_state,
        )
        # Blocks for as long as the queue is empty, so it has a connection and a time-out of its own.
        self._sleeper = connect(
            url, max_connections=2, timeout_seconds=_LONGEST_SLEEP_SECONDS + self._settings.redis.timeout_seconds
        )

    def stop(self) -> None:
        """Begin to leave: what a signal handler calls."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`, then hand over and return."""
        claiming = asyncio.create_task(self._claim_forever())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({claiming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if claiming.done():
                claiming.result()  # it ends only by failing
        finally:
            for task in (claiming, stopping):
                task.cancel()
            await asyncio.gather(claiming, stopping, return_exceptions=True)
            await self._drain()
            self._heartbeat.close()
            await self._sleeper.aclose()

    async def _claim_forever(self) -> None:
        slots = self._settings.runs.worker_slots
        request = uuid.uuid4().hex
        while True:
            while (asked := slots - len(self._held) - len(self._unstoppable)) <= 0:
                self._freed.clear()
                await self._freed.wait()
            try:
                claims = await self._claim(asked, request)
                request = uuid.uuid4().hex
                for claim in claims.runs:
                    self._begin(claim)
                if len(claims.runs) < asked:  # nothing more is due, the reply said until when
                    await self._sleep(claims.next_due)
            except RedisUnavailable:
                _log.warning("Redis does not answer", fix="the worker tries again by itself")
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _claim(self, most: int, request: str) -> Claims:
        claiming = asyncio.ensure_future(self._ledger.claim(self.id, most, request))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:  # stopping: what was claimed at this very moment goes back
            for claim in (await claiming).runs:
                await self._give_back(claim, pause=timedelta(), used=claim.attempt - 1)
            raise

    async def _sleep(self, next_due: timedelta | None) -> None:
        """Until woken by a new run, or until the next run is due; for a lease at most.

        Nobody is told when another worker takes a run. Whoever looks once a lease knows, before the lease of a worker
        that has died ends, when that will be.
        """
        longest = min(_LONGEST_SLEEP_SECONDS, self._settings.runs.lease_seconds)
        if next_due is not None:
            longest = min(longest, next_due.total_seconds())
        # In a task of its own: on Python 3.11 the client, which sends by `asyncio.wait_for`, may swallow a cancellation
        # (https://github.com/python/cpython/issues/86296), and a worker told to stop would go on claiming.
        waking = asyncio.ensure_future(
            self._sleeper.blpop([self._keys.wake(self._ledger.release)], timeout=max(0.01, longest))
        )
        try:
            await asyncio.wait({waking})
        except asyncio.CancelledError:
            waking.cancel()
            waking.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody asks for it any more
            raise
        with outages():
            waking.result()

    def _begin(self, claim: Claim) -> None:
        task = asyncio.create_task(self._attempt(claim))
        self._held[claim.run_id] = _Held(claim, task, asyncio.get_running_loop().create_future())
        self._heartbeat.hold(claim)

        def ended(done: asyncio.Task[None]) -> None:
            self._heartbeat.let_go(claim)
            held = self._held.get(claim.run_id)
            if held is not None and held.claim.epoch == claim.epoch:
                del self._held[claim.run_id]
            self._freed.set()
            if not done.cancelled() and (error := done.exception()) is not None:
                _log.error("attempt ended without an outcome", run_id=claim.run_id, exc_info=error)

        task.add_done_callback(ended)

    def _on_state(self, run_id: RunId, epoch: int, state: str) -> None:
        held = self._held.get(run_id)
        if held is not None and held.claim.epoch == epoch:
            _end(held, Stop(state) if state in STOPS else _Ending.STALE)

    async def _attempt(self, claim: Claim) -> None:
        """Execute a claimed run to an outcome, a retry or a hand-over; leaves it alone when it has a newer owner."""
        held = self._held[claim.run_id]
        started = time.monotonic()
        try:
            run = await self._ledger.claimed(claim)
            with structlog.contextvars.bound_contextvars(
                run_id=run.run_id, thread_id=run.thread_id, tenant=run.tenant, request_id=run.request_id
            ):
                telemetry.queue_wait.record(claim.waited_seconds, {"graph": run.graph})
                with telemetry.tracer.start_as_current_span(
                    f"run {run.graph}",
                    context=telemetry.resume(run.traceparent),
                    kind=SpanKind.CONSUMER,
                    attributes={
                        "slipway.run.id": run.run_id,
                        "gen_ai.conversation.id": run.thread_id,
                        "slipway.run.attempt": claim.attempt,
                    },
                ):
                    await self._execute(run, held)
        except StaleEpoch as error:
            telemetry.fencing_refusals.add(1)
            _log.warning("run has a newer owner", run_id=claim.run_id, held=error.held, current=error.current)
        except RedisUnavailable:
            _log.warning("Redis went away under a run", run_id=claim.run_id, seconds=time.monotonic() - started)
            await self._give_back(claim, pause=timedelta(), used=claim.attempt - 1)

    async def _execute(self, run: Run, held: _Held) -> None:
        claim = held.claim
        if claim.stop is not None:
            return await self._complete(run, claim, await self._stop(run, claim, claim.stop))
        events = EventWriter(
            self._services.redis,
            self._keys,
            claim,
            most=self._settings.runs.event_max_entries,
            failed=lambda _: _end(held, _Ending.STALE),
        )
        events.put("attempt", encode({"attempt": claim.attempt}), soon=False)
        try:
            outcome = await self._outcome(run, held, events)
            if outcome is None:
                return None
            # The last events go with the end of the run, in one script.
            return await self._complete(run, claim, outcome, await events.finish())
        finally:
            events.close()

    async def _stop(self, run: Run, claim: Claim, stop: Stop) -> Outcome:
        """The end of a run that was claimed to be stopped; a rollback undoes what its attempts wrote to the thread."""
        if stop is Stop.ROLLBACK:
            try:
                await undo(run, claim, self._services)
            except CheckpointDamaged as error:
                _log.error("run cannot be rolled back", exc_info=error)
                failure = Failure(type(error).__name__, "")
                return Outcome(Status.ERROR, {**run.identity, "error": {"kind": "rollback_failed"}}, failure)
        return Outcome(stop.status, stopped(run, stop))

    async def _outcome(self, run: Run, held: _Held, events: EventWriter) -> Outcome | None:
        """What the attempt came to; None when the run was given back. Raises what says that it is no longer ours."""
        claim = held.claim
        try:
            held.execution = execution = Execution(
                run, claim, self._graphs(run.graph), self._services, on_stale=lambda _: _end(held, _Ending.STALE)
            )
            if claim.attempt > self._settings.runs.run_max_attempts:
                return await self._failed(run, held, "attempts_exhausted")
            if self._stopping.is_set():  # it was claimed at the last moment
                execution.control.request_drain(_STOPPING)
            ending = await self._until_ended(held, asyncio.create_task(execution.perform(events)))
        except GraphDrained:
            await events.flush()
            await self._hand_over(claim)
            return None
        except Exception as error:  # a graph may raise anything; it ends the attempt, not the worker
            return await self._after(run, held, error, events)
        if isinstance(ending, Outcome):
            return ending
        if ending is Stop.ROLLBACK:  # undone under another epoch: see `undo`
            await events.flush()
            await self._give_back(claim, pause=timedelta(), used=claim.attempt - 1)
            return None
        if isinstance(ending, Stop):
            return Outcome(ending.status, stopped(run, ending))
        if ending is _Ending.TIMEOUT:
            return await self._failed(run, held, "run_timeout", error="RunTimedOut")
        if ending is _Ending.DRAIN:
            await events.flush()
            await self._hand_over(claim)
            return None
        await events.flush()  # raises what writing was refused with, if that was the reason
        raise StaleEpoch(run.run_id, claim.epoch, None)

    async def _until_ended(self, held: _Held, graph: asyncio.Task[Outcome]) -> Outcome | _Ending | Stop:
        """The graph's outcome, or the reason for which it was stopped before. Raises what the graph raises.

        The graph runs in a task of its own, so that stopping it never cuts off the writing of how it ended.
        """
        seconds = self._settings.runs.run_timeout_seconds
        either: set[asyncio.Future[Any]] = {graph, held.ending}
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if graph.cancelled():  # by nobody here: a node let a cancellation of its own escape
            raise RuntimeError("the graph has cancelled itself")
        if graph.done():
            return graph.result()
        _end(held, _Ending.TIMEOUT)
        until = time.monotonic() + _STOP_SECONDS
        while not graph.done() and time.monotonic() < until:
            graph.cancel()  # again and again: a node may swallow one
            await asyncio.wait({graph}, timeout=_CANCEL_AGAIN_SECONDS)
        if not graph.done():
            _log.error("graph does not stop", fix="let nodes pass on asyncio.CancelledError, and await what takes long")
            self._unstoppable.add(graph)
        graph.add_done_callback(self._stopped)
        return held.ending.result()

    def _stopped(self, graph: asyncio.Task[Outcome]) -> None:
        self._unstoppable.discard(graph)
        self._freed.set()
        if not graph.cancelled():
            graph.exception()  # what it raises on its way out concerns nobody: the reason for its end is known

    async def _hand_over(self, claim: Claim) -> None:
        """Give the run back at once, as if this attempt had not been: stopping a worker is nobody's failure."""
        telemetry.drains.add(1)
        await self._give_back(claim, pause=timedelta(), used=claim.attempt - 1)

    async def _after(self, run: Run, held: _Held, error: Exception, events: EventWriter) -> Outcome | None:
        """What an attempt's error means: an outcome, or None when the run was put back for another attempt."""
        claim = held.claim
        not_ours = _cause(error, StaleEpoch) or _cause(error, RedisUnavailable)
        if not_ours is not None:
            raise not_ours
        if isinstance(error, KeyError) and run.graph in error.args and held.execution is None:
            return await self._failed(run, held, "graph_unknown", error=type(error).__name__)
        name = type(error).__name__
        if is_transient(error) and claim.attempt < self._settings.runs.run_max_attempts:
            pause = pause_after(error, claim.attempt)
            _log.warning(
                "attempt failed, trying again", exc_info=error, attempt=claim.attempt, pause=pause.total_seconds()
            )
            await events.flush()
            await self._give_back(claim, pause=pause, used=claim.attempt, error=name)
            return None
        _log.error("run failed", exc_info=error, attempt=claim.attempt)
        return await self._failed(
            run, held, "dependency_unavailable" if is_transient(error) else "internal", error=name
        )

    async def _failed(self, run: Run, held: _Held, kind: str, *, error: str = "") -> Outcome:
        """The outcome of a run that failed for good, with what its dead letter holds."""
        checkpoint_id = "" if held.execution is None else await held.execution.newest_checkpoint()
        status = Status.TIMEOUT if kind == "run_timeout" else Status.ERROR
        return Outcome(status, {**run.identity, "error": {"kind": kind}}, Failure(error, checkpoint_id))

    async def _complete(
        self, run: Run, claim: Claim, outcome: Outcome, events: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        result = plain(outcome.result)
        while True:
            try:
                ended = await self._ledger.complete(claim, run, outcome.status, result, events, outcome.failure)
                break
            except RedisUnavailable:  # the work is done: keep trying while the run is ours, the script runs once
                await asyncio.sleep(_RECONNECT_SECONDS)
        if not ended:
            await self._give_back(claim, pause=timedelta(), used=claim.attempt - 1)
            return
        now_ms = time.time() * 1000
        labels = {"graph": run.graph, "status": str(outcome.status)}
        span = trace.get_current_span()
        span.set_attribute("slipway.run.status", str(outcome.status))
        if outcome.status.failed:
            span.set_status(StatusCode.ERROR)
        telemetry.runs_ended.add(1, labels)
        telemetry.run_duration.record(max(0.0, (now_ms - run.accepted_ms) / 1000), labels)
        for model, used in outcome.result.get("usage_by_model", {}).items():
            for direction in ("input", "output"):
                telemetry.tokens.add(used[f"{direction}_tokens"], {"model": model, "direction": direction})
        if outcome.result.get("cost_usd"):
            telemetry.cost.add(outcome.result["cost_usd"], {"model": outcome.result.get("model") or "unknown"})
        _log.info("run ended", status=str(outcome.status), attempt=claim.attempt)

    async def _give_back(self, claim: Claim, *, pause: timedelta, used: int, error: str = "") -> None:
        until = time.monotonic() + _GIVE_BACK_SECONDS
        while True:
            try:
                await self._ledger.give_back(claim, pause=pause, used=used, error=error)
                return
            except StaleEpoch:
                telemetry.fencing_refusals.add(1)
                return  # somebody has it already
            except RedisUnavailable:
                if time.monotonic() > until or self._stopping.is_set():
                    return
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _drain(self) -> None:
        """Ask every run to stop at its next step; cut off what has not after DRAIN_SECONDS."""
        for held in list(self._held.values()):
            if held.execution is not None:
                held.execution.control.request_drain(_STOPPING)
        tasks = [held.task for held in self._held.values()]
        if tasks:
            _log.info("draining", runs=len(tasks))
            _, late = await asyncio.wait(tasks, timeout=self._settings.service.drain_seconds)
            for held in list(self._held.values()):
                if held.task in late:
                    _end(held, _Ending.DRAIN)
            if late:
                await asyncio.wait(late, timeout=self._settings.redis.timeout_seconds)


def _end(held: _Held, why: _Ending | Stop) -> None:
    if not held.ending.done():
        held.ending.set_result(why)


def _cause(error: BaseException, kind: type[Exception]) -> Exception | None:
    """The error of `kind` that lies behind `error`, if any: graphs wrap and chain what the saver raises."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, kind):
            return one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += list(one.exceptions)
    return None
