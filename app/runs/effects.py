"""The effect journal: what each tool call did, so that running a step again does not do it again.

| key                       | field                     | value                                 | lives           |
|---------------------------|---------------------------|---------------------------------------|-----------------|
| {agent-tasks}:effects:<r> | SHA-256 of the call's key | `<state> <nonce> <ms> <epoch> <JSON>` | as its runs |

<r> is the run whose effects these are; answers of a person and replays go on in the same journal, which lives on while
any of these runs is unfinished or waits for a person (`finish.lua`). Around each call:
`intent` is written, the call is made, its result is written. Who comes to the same call later finds

    done, failed     the recorded result; the call is not made
    intent, unknown  a call that may have taken effect: made again when the tool is idempotent, or when its lookup says
                     that nothing happened; else a person decides
    again            the person decided so: the call is made

Every write is fenced: a worker that has lost its run is refused before the call. A call that is already on its way
cannot be fenced.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from langgraph.errors import GraphBubbleUp

from app.infra import telemetry
from app.infra.effects import OPEN, CallIdReused, Decision, Effect, EffectCall, EffectState, Outcome
from app.infra.errors import RedisUnavailable, StaleEpoch
from app.infra.fence import Fence, FencedLua
from app.infra.ids import RunId
from app.infra.keys import Keys
from app.infra.logging import get_logger
from app.infra.redis import outages
from app.runs.encoding import encode

_log = get_logger(__name__)

_HERE = Path(__file__).parent
_BEGIN = FencedLua(_HERE, "effect_begin.lua")
_SETTLE = FencedLua(_HERE, "effect_settle.lua")

_RECONNECT_SECONDS = 0.5
_BEGIN_SECONDS = 10.0
"""How long an intent or a decision is offered while Redis is away. Asked again under the same nonce, a lost reply is
told from another's call; giving up at once would leave an intent behind whose call was never made."""
_LAST_WORDS_SECONDS = 2.0
"""How long a cancelled task goes on to record what its call has just come to."""
_MARGIN_SECONDS = 1.0
"""Added to a tool's time limit before a lookup is believed that finds nothing: ending a call takes a moment, too."""

CUT_OFF = "the call was cut off before the tool answered"
"""Why the outcome of an intent without a result is unknown: a worker died, or the run was stopped."""


async def effects_of(redis: Any, keys: Keys, root: RunId) -> list[Effect]:
    """The calls of a run, and of those that share its journal (`Run.effects_root`), in the order they were begun.

    Empty when there were none, or when the journal has expired. Raises `RedisUnavailable`.
    """
    with outages():
        records = await redis.hgetall(keys.effects(root))
    found = [_effect(id_.decode(), record) for id_, record in records.items()]
    return sorted(found, key=lambda effect: (effect.at_ms, effect.call_id))


@dataclass(slots=True)
class _UnderWay:
    """A key that calls of this process are about, in turn."""

    fingerprint: str
    turn: asyncio.Lock
    calls: int = 0


class RedisEffects:
    """The journal of one attempt: an `app.infra.effects.EffectJournal`."""

    def __init__(
        self,
        redis: Any,
        keys: Keys,
        fence: Fence,
        root: RunId,
        *,
        attempt: int,
        lease_seconds: float,
        ttl_seconds: int,
        kept: Callable[[], Awaitable[None]],
        on_stale: Callable[[StaleEpoch], None],
    ) -> None:
        """`root` is `Run.effects_root`. `ttl_seconds` is for a journal that nobody ends: how long that of an ended run
        is kept is the ledger's to say. `kept` waits until the checkpoint is stored that the current step began from:
        a step whose checkpoint is lost begins again under another task id, and its calls under other keys. `on_stale`
        is told of each refused write: the graph may catch what is raised, and go on."""
        self._redis, self._epochs, self._journal = redis, keys.epochs, keys.effects(root)
        self._fence, self._attempt = fence, attempt
        self._lease, self._ttl, self._kept, self._on_stale = lease_seconds, ttl_seconds, kept, on_stale
        self._under_way: dict[str, _UnderWay] = {}

    async def perform(self, call: EffectCall) -> Effect:
        """See `EffectJournal.perform`."""
        id_ = hashlib.sha256(call.key.encode()).hexdigest()
        async with self._in_turn(id_, call):
            await self._kept()
            over, answers = "", 0
            while True:
                mine = Effect(
                    id=id_,
                    state=EffectState.INTENT,
                    tool=call.tool,
                    call_id=call.call_id,
                    task_id=call.task_id,
                    run_id=self._fence.run_id,
                    attempt=self._attempt,
                    epoch=self._fence.epoch,
                    nonce=uuid.uuid4().hex,
                    at_ms=0,
                    answers=answers,
                )
                found, now_ms = await self._begin(mine, over=over)
                if found.nonce == mine.nonce:
                    return await self._make(call, found)
                if found.tool != call.tool:
                    raise CallIdReused(call.call_id)
                settled = await self._settled(call, found, now_ms)
                _count(call.tool, "again" if settled is None else "unknown" if settled.state in OPEN else "recorded")
                if settled is not None:
                    return settled
                over, answers = found.nonce, found.answers

    async def decide(self, decisions: Sequence[Decision], *, by: str, answers: int) -> None:
        """See `EffectJournal.decide`."""
        await self._kept()
        await self._write(
            [
                replace(made.effect, state=made.state, result=made.result, decided_by=by, answers=answers)
                for made in decisions
            ],
            within_seconds=_BEGIN_SECONDS,
        )
        for made in decisions:
            _count(made.effect.tool, "decided")

    async def _settled(self, call: EffectCall, found: Effect, now_ms: int) -> Effect | None:
        """What an earlier making of the call is good for; None: the call is to be made again."""
        if found.state not in OPEN:
            return None if found.state is EffectState.AGAIN else found
        if call.idempotent:
            return None
        unknown = replace(found, state=EffectState.UNKNOWN, reason=found.reason or CUT_OFF)
        if call.lookup is None:
            return unknown
        ends = call.timeout_seconds + _MARGIN_SECONDS - (now_ms - found.at_ms) / 1000
        outcome = await _look_up(call.lookup, under_way_seconds=ends)
        if outcome is None:
            return None
        if outcome.state is EffectState.UNKNOWN:
            return replace(unknown, reason=f"{unknown.reason}; {outcome.reason}")
        settled = replace(found, state=outcome.state, result=outcome.result, reason="")
        await self._record(settled)
        return settled

    async def _make(self, call: EffectCall, mine: Effect) -> Effect:
        started = time.monotonic()
        try:
            outcome = await call.perform()
        except GraphBubbleUp:  # the tool asks a person first, and will be called anew: nothing has happened yet
            await self._record(mine, forget=True)
            raise
        if outcome.state is EffectState.UNKNOWN and call.lookup is not None:
            ends = call.timeout_seconds + _MARGIN_SECONDS - (time.monotonic() - started)
            found = await _look_up(call.lookup, under_way_seconds=ends)
            if found is None:  # nothing happened: the caller is told of the failure, and decides what to do next
                outcome = Outcome(EffectState.FAILED, outcome.result)
            elif found.state is EffectState.UNKNOWN:
                outcome = replace(outcome, reason=f"{outcome.reason}; {found.reason}")
            else:
                outcome = found
        if outcome.state is EffectState.UNKNOWN:
            effect = replace(mine, state=outcome.state, reason=outcome.reason)
        else:
            effect = replace(mine, state=outcome.state, result=outcome.result)
        await self._record(effect)
        _count(call.tool, str(effect.state))
        return effect

    async def _begin(self, mine: Effect, *, over: str) -> tuple[Effect, int]:
        """The record of the call, which is `mine` if the call may be made, and Redis's time in ms.

        Raises `StaleEpoch` and `RedisUnavailable`: then the call must not be made.
        """
        until = time.monotonic() + _BEGIN_SECONDS
        while True:
            sent = time.monotonic()
            try:
                record, now = await self._run(_BEGIN, [mine.id, mine.nonce, over, _body(mine), self._ttl])
            except RedisUnavailable:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            except StaleEpoch:
                _count(mine.tool, "refused")
                raise
            # A process that was frozen in between may have lost its run: it asks again whether the run is its own.
            if time.monotonic() - sent < self._lease / 2:
                return _effect(mine.id, record), int(now)

    async def _record(self, effect: Effect, *, forget: bool = False) -> None:
        """Write what a call came to, for as long as the run is ours, and even when its task is being cancelled."""
        writing = asyncio.ensure_future(self._write([effect], forget=forget))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing}, timeout=_LAST_WORDS_SECONDS)
            writing.cancel()
            writing.add_done_callback(lambda done: done.cancelled() or done.exception())  # the intent says enough
            raise

    async def _write(
        self, effects: Sequence[Effect], *, forget: bool = False, within_seconds: float | None = None
    ) -> None:
        until = None if within_seconds is None else time.monotonic() + within_seconds
        args: list[Any] = [self._ttl]
        for effect in effects:
            args += [effect.id, effect.nonce, "" if forget else effect.state, _body(effect)]
        while True:
            try:
                await self._run(_SETTLE, args)
                return
            except RedisUnavailable:
                if until is not None and time.monotonic() > until:
                    raise
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _run(self, script: FencedLua, args: list[Any]) -> Any:
        try:
            return await script(self._redis, epochs=self._epochs, fence=self._fence, keys=[self._journal], args=args)
        except StaleEpoch as error:
            self._on_stale(error)
            raise

    @asynccontextmanager
    async def _in_turn(self, id_: str, call: EffectCall) -> AsyncIterator[None]:
        """One call of a key at a time: those that a step makes twice at once share the outcome of the first."""
        under_way = self._under_way.setdefault(id_, _UnderWay(call.fingerprint, asyncio.Lock()))
        if under_way.fingerprint != call.fingerprint:
            raise CallIdReused(call.call_id)
        under_way.calls += 1
        try:
            async with under_way.turn:
                yield
        finally:
            under_way.calls -= 1
            if not under_way.calls:
                del self._under_way[id_]


async def _look_up(lookup: Callable[[], Awaitable[Outcome | None]], *, under_way_seconds: float) -> Outcome | None:
    """The outcome that the other system knows of; None when nothing happened.

    A call that may still be under way could take effect after the answer, so nothing found counts only from then on.
    """
    found = await lookup()
    if found is not None or under_way_seconds <= 0:
        return found
    await asyncio.sleep(under_way_seconds)
    return await lookup()


def _count(tool: str, outcome: str) -> None:
    telemetry.effects.add(1, {"tool": tool, "outcome": outcome})


def _body(effect: Effect) -> bytes:
    facts = {
        "tool": effect.tool,
        "call_id": effect.call_id,
        "task_id": effect.task_id,
        "run_id": effect.run_id,
        "attempt": effect.attempt,
        "result": effect.result,
        "reason": effect.reason,
        "answers": effect.answers,
        "decided_by": effect.decided_by,
    }
    return encode({name: value for name, value in facts.items() if value})


def _effect(id_: str, record: bytes) -> Effect:
    state, nonce, at_ms, epoch, body = record.split(b" ", 4)
    facts = orjson.loads(body)
    return Effect(
        id=id_,
        state=EffectState(state.decode()),
        tool=facts["tool"],
        call_id=facts.get("call_id", ""),
        task_id=facts.get("task_id", ""),
        run_id=RunId(facts["run_id"]),
        attempt=facts["attempt"],
        epoch=int(epoch),
        nonce=nonce.decode(),
        at_ms=int(at_ms),
        result=facts.get("result", ""),
        reason=facts.get("reason", ""),
        answers=facts.get("answers", 0),
        decided_by=facts.get("decided_by", ""),
    )
