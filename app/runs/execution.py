"""One attempt of a run: stream the graph under the fence, write its events, say how it ended."""

from __future__ import annotations

import copy
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphRecursionError
from langgraph.pregel import Pregel
from langgraph.runtime import RunControl
from langgraph.store.base import BaseStore
from langgraph.types import Command, Interrupt

from app.infra import telemetry
from app.infra.context import RunContext
from app.infra.errors import StaleEpoch
from app.infra.keys import Keys
from app.infra.settings import Settings
from app.memory.checkpoints import RedisSaver, open_serializer
from app.models.prices import cost
from app.runs.effects import RedisEffects
from app.runs.encoding import event_data
from app.runs.events import EventWriter
from app.runs.kept import KeptSaver
from app.runs.model import Claim, Failure, Run, Status


class _Usage(UsageMetadataCallbackHandler):
    """Sums tokens by model; called in the event loop, where LangChain would send each of a dozen calls to a thread."""

    run_inline = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, and the run's result so far as JSON values."""

    status: Status
    result: dict[str, Any] = field(repr=False)
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Services:
    """What every attempt of a process shares."""

    redis: Any
    keys: Keys
    settings: Settings
    store: BaseStore | None


class Execution:
    """Runs one claim's graph. `control.request_drain` makes it stop at the next step (`GraphDrained` is raised)."""

    def __init__(
        self,
        run: Run,
        claim: Claim,
        graph: Pregel[Any, Any, Any, Any],
        services: Services,
        *,
        on_stale: Callable[[StaleEpoch], None],
    ) -> None:
        """`on_stale` is called at the first checkpoint write that is refused; LangGraph tells only at the end."""
        self._run, self._claim, self._services = run, claim, services
        self.control = RunControl()
        self._saver = KeptSaver(
            services.redis,
            services.keys,
            fence=claim.fence,
            ttl_seconds=services.settings.runs.thread_retention_seconds,
            on_stale=on_stale,
            serde=open_serializer(services.settings.runs),
            empty=run.first and not claim.again,
        )
        self._effects = RedisEffects(
            services.redis,
            services.keys,
            claim.fence,
            run.effects_root,
            attempt=claim.attempt,
            lease_seconds=services.settings.runs.lease_seconds,
            ttl_seconds=services.settings.runs.thread_retention_seconds,
            kept=self._saver.kept,
            on_stale=on_stale,
        )
        # Shared by all runs, so it is copied; `Pregel.copy` would validate the whole graph again for each run.
        self._graph = copy.copy(graph)
        self._graph.checkpointer = self._saver
        self._graph.step_timeout = services.settings.runs.step_timeout_seconds
        if services.store is not None:
            self._graph.store = services.store
        self._usage = _Usage()

    async def perform(self, events: EventWriter) -> Outcome:
        """Stream the graph to its end, or to where it asks for a person. Raises what the graph raises."""
        settings = self._services.settings.runs
        values: dict[str, Any] = {}
        interrupts: list[Interrupt] = []
        finish_reason = "stop"
        silent = True
        answers = self._claim.again and self._run.command is not None
        if answers and await self._saver.ahas_asked(self._run.thread_id, self._run.run_id):
            # An earlier attempt has used the answer up, and died with the next question stored.
            state = await self._graph.aget_state(self._config())
            return self._asks(state.values, state.interrupts)
        parts: AsyncIterator[Any] = self._graph.astream(
            await self._input(),
            self._config(),
            context=self._context(),
            stream_mode=["values", "updates", "messages", "custom"],
            subgraphs=True,
            durability=settings.durability,
            control=self.control,
        )
        try:
            async for namespace, mode, payload in parts:
                if mode == "values":
                    if not namespace:
                        values = payload
                    continue
                if mode == "updates" and "__interrupt__" in payload:
                    if not namespace:
                        interrupts += payload["__interrupt__"]
                    continue
                if silent and mode == "messages" and payload[0].text:
                    silent = False
                    seconds = max(0.0, time.time() - self._run.accepted_ms / 1000)
                    telemetry.time_to_first_token.record(seconds, {"graph": self._run.graph})
                events.put(mode, event_data(namespace, mode, payload))
        except GraphRecursionError:
            finish_reason = "max_iterations"
        if not values:  # every step was done before this attempt
            values = (await self._graph.aget_state(self._config())).values
        if interrupts:
            return self._asks(values, interrupts)
        return Outcome(Status.SUCCESS, self.result(values, finish_reason))

    def _asks(self, values: Any, interrupts: Sequence[Interrupt]) -> Outcome:
        """The end of a run that waits for a person."""
        questions = [{"id": asked.id, "value": asked.value} for asked in interrupts]
        return Outcome(Status.INTERRUPTED, {**self.result(values, "interrupt"), "interrupts": questions})

    async def newest_checkpoint(self) -> str:
        """Id of the thread's newest checkpoint, from which a replay goes on; empty when there is none."""
        return await self._saver.anewest_id(self._run.thread_id)

    async def _input(self) -> dict[str, Any] | Command[Any] | None:
        """The run's input; None where this run, or one that it replays, has saved it: the graph goes on from there."""
        run = self._run
        if self._claim.again or run.continues:
            saved = await self._saver.aget_tuple(self._config())
            if saved is not None and saved.metadata.get("run_id") in (run.run_id, *run.continues):
                return None
        if run.command is not None:
            return Command(resume=run.command["resume"])
        given = dict(run.input)
        if "messages" in given:
            given["messages"] = convert_to_messages(given["messages"])
        return given

    def _config(self) -> RunnableConfig:
        return {
            "configurable": {"thread_id": self._run.thread_id},
            "metadata": {"run_id": self._run.run_id},
            "callbacks": [self._usage],
            "recursion_limit": self._services.settings.runs.max_iterations,
            "run_name": self._run.graph,
        }

    def _context(self) -> RunContext | None:
        """Our context, for graphs that declare it; another schema would not know what to do with it."""
        schema = self._graph.context_schema
        if schema is not None and schema is not RunContext:
            return None
        run = self._run
        return RunContext(
            run_id=run.run_id,
            thread_id=run.thread_id,
            tenant=run.tenant,
            user=run.user,
            release=run.release,
            attempt=self._claim.attempt,
            fence=self._claim.fence,
            effects=self._effects,
        )

    def result(self, values: Any, finish_reason: str) -> dict[str, Any]:
        """The run's result: the answer, what it rests on, which models were used and what they cost."""
        last = _last_answer(values)
        if finish_reason == "stop" and last is not None and cut_off(last):
            finish_reason = "length"
        usage = self._usage.usage_metadata
        price = cost(usage)
        return {
            **self._run.identity,
            "answer": "" if last is None else last.text,
            "model": None if last is None else last.response_metadata.get("model_name"),
            "sources": values.get("sources", []) if isinstance(values, dict) else [],
            "usage": {
                name: sum(int(part[name]) for part in usage.values())
                for name in ("input_tokens", "output_tokens", "total_tokens")
            },
            "usage_by_model": {
                model: {"input_tokens": part["input_tokens"], "output_tokens": part["output_tokens"]}
                for model, part in usage.items()
            },
            "cost_usd": None if price is None else float(price),
            "finish_reason": finish_reason,
        }


def cut_off(answer: BaseMessage) -> bool:
    """Whether the model ended at its limit of tokens: OpenAI's `finish_reason`, Anthropic's `stop_reason`."""
    metadata = answer.response_metadata
    return metadata.get("finish_reason") == "length" or metadata.get("stop_reason") == "max_tokens"


def _last_answer(values: Any) -> BaseMessage | None:
    messages = values.get("messages", []) if isinstance(values, dict) else []
    for message in reversed(messages):
        if isinstance(message, AIMessage):
            return message
        if getattr(message, "type", "") == "human":
            return None
    return None


async def undo(run: Run, claim: Claim, services: Services) -> None:
    """Set the run's thread back to what it was before the run. Raises `CheckpointDamaged`, `StaleEpoch`.

    To be called under an epoch in which no graph has run: one that does not stop when it is told to is fenced off then.
    """
    ttl = services.settings.runs.thread_retention_seconds
    saver = RedisSaver(services.redis, services.keys, fence=claim.fence, ttl_seconds=ttl)
    await saver.arollback(run.thread_id, [run.run_id])
