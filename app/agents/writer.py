"""Writes answers: by a model from passages, or, where that fails, by quoting them word for word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata

from app.agents.passages import EXCERPT_CHARS, Passage, window
from app.infra.ids import new_id
from app.models.clients import ChatModels
from app.models.registry import ModelEntry, Role
from app.prompts.registry import Prompt, PromptRegistry

NOTHING_FOUND = "I found nothing about this."
DIFFICULT = 0.6
"""Complexity from which the reasoning model answers."""
WINDOW_MESSAGES = 12
"""Earlier messages of the thread that an answer sees at most."""
SMALL_WINDOW_MESSAGES, SMALL_WINDOW_CHARS = 4, 600
CHARS_PER_TOKEN = 4
"""A low estimate for English, so that what is counted in characters fits."""
RETRY_CHARS = 250
"""What a small model reads when its first draft was refused."""


@dataclass(frozen=True, slots=True)
class Task:
    """What an answer is written for."""

    question: str
    passages: Sequence[Passage] = ()
    memories: Sequence[str] = ()
    earlier: Sequence[AnyMessage] = ()
    """Messages of the thread before the question."""
    complexity: float = 0.0
    problems: Sequence[str] = ()
    """What was wrong with the draft before."""


class Writer:
    """Answers through a model. Raises what the model's client raises when it cannot be reached."""

    def __init__(self, models: ChatModels, prompts: PromptRegistry) -> None:
        self._models, self._prompts = models, prompts

    async def answer(self, task: Task) -> AIMessage:
        """An answer to the question from its passages; not yet checked."""
        entry, prompt = self._choose("answer", task.complexity)
        if entry.small:
            shown = self.shown(task.question, task.passages, entry)
            if task.problems:
                # The same text at temperature 0 would give the same draft again: another try reads its heart only.
                best = shown[0]
                shown = [Passage(**{**best, "excerpt": window(best["excerpt"], task.question, RETRY_CHARS)})]
            text = "\n\n".join(passage["excerpt"] for passage in shown)
            messages = prompt.messages(passages=text, question=task.question)
            return await self._ask(entry, prompt, messages)
        remarks = ""
        if task.problems:
            problems = "; ".join(task.problems)
            remarks = f"Your last answer was refused: {problems}. Write one that rests on the results."
        messages = prompt.messages(
            passages=marked(self.shown(task.question, task.passages, entry)),
            memories=_listed(task.memories) or "nothing",
            remarks=remarks,
            question=task.question,
        )
        return await self._ask(entry, prompt, [*messages[:-1], *self._earlier(task, entry), messages[-1]])

    async def converse(self, task: Task) -> AIMessage:
        """An answer from the conversation and what is known about the user.

        A small model that was asked about the user reads the best fact as it reads a passage: in a conversation it goes
        on about itself.
        """
        entry = self.entry(task.complexity)
        if entry.small and task.memories:
            entry, prompt = self._choose("answer", task.complexity)
            text = "\n".join(task.memories[: entry.passages])
            return await self._ask(entry, prompt, prompt.messages(passages=text, question=task.question))
        entry, prompt = self._choose("converse", task.complexity)
        messages = prompt.messages(memories=_listed(task.memories) or "nothing", message=task.question)
        return await self._ask(entry, prompt, [*messages[:-1], *self._earlier(task, entry), messages[-1]])

    def shown(self, question: str, passages: Sequence[Passage], entry: ModelEntry | None = None) -> list[Passage]:
        """The passages that the model is shown: as many and as long as its entry allows."""
        entry = entry or self._models.registry.role(Role.ORCHESTRATOR)
        return [
            Passage(
                title=passage["title"],
                uri=passage["uri"],
                excerpt=window(passage["excerpt"], question, entry.passage_chars),
            )
            for passage in passages[: entry.passages]
        ]

    def entry(self, complexity: float) -> ModelEntry:
        """The model that answers a question of that difficulty, unless a prompt names another."""
        return self._models.registry.role(Role.REASONER if complexity >= DIFFICULT else Role.ORCHESTRATOR)

    def _choose(self, task: str, complexity: float) -> tuple[ModelEntry, Prompt]:
        """The model by difficulty, and the prompt in the size that the model can follow; a prompt may name a model."""
        entry = self.entry(complexity)
        prompt = self._prompts.get(f"{task}-small" if entry.small else task)
        return (self._models.registry.get(prompt.model) if prompt.model else entry), prompt

    def _earlier(self, task: Task, entry: ModelEntry) -> list[AnyMessage]:
        """The thread's last messages that fit: people's and answers', whole ones, beginning with a person's."""
        most = SMALL_WINDOW_MESSAGES if entry.small else WINDOW_MESSAGES
        room = SMALL_WINDOW_CHARS if entry.small else entry.context_tokens * CHARS_PER_TOKEN // 4
        kept: list[AnyMessage] = []
        for message in reversed(task.earlier):
            if not isinstance(message, HumanMessage | AIMessage) or not message.text:
                continue
            room -= len(message.text)
            if room < 0 or len(kept) == most:
                break
            kept.insert(0, message)
        while kept and not isinstance(kept[0], HumanMessage):
            kept.pop(0)
        return kept

    async def _ask(self, entry: ModelEntry, prompt: Prompt, messages: list[BaseMessage]) -> AIMessage:
        model = self._models.chat(entry.name, temperature=prompt.temperature)
        stop = list(prompt.content.stop)
        reply = await (model.ainvoke(messages, stop=stop) if stop else model.ainvoke(messages))
        named = {"model_name": entry.name, **reply.response_metadata, "prompt": prompt.name}
        usage = reply.usage_metadata or UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
        return reply.model_copy(update={"response_metadata": named, "usage_metadata": usage})


_TAG = re.compile(r"<\s*(/?)\s*(result|answer|message)", re.IGNORECASE)


def marked(passages: Sequence[Passage]) -> str:
    """The passages, numbered, between tags that their own text cannot close."""
    blocks = []
    for number, passage in enumerate(passages, 1):
        text = _TAG.sub(r"‹\1\2", passage["excerpt"])
        where = f'title="{_attribute(passage["title"])}" source="{_attribute(passage["uri"])}"'
        blocks.append(f'<result number="{number}" {where}>\n{text}\n</result>')
    return "\n".join(blocks)


def _attribute(text: str) -> str:
    return text.replace('"', "'").replace("<", "‹").replace("\n", " ")


def _listed(memories: Sequence[str]) -> str:
    return "\n".join(f"- {memory}" for memory in memories)


def transcript(messages: Sequence[AnyMessage], chars: int = 4_000) -> str:
    """The end of a conversation as lines `user: …` and `assistant: …`, for a planner's prompt."""
    lines = [
        f"{'user' if isinstance(message, HumanMessage) else 'assistant'}: {message.text[:1_000]}"
        for message in messages[-WINDOW_MESSAGES:]
        if not isinstance(message, SystemMessage) and message.text
    ]
    while lines and sum(len(line) + 1 for line in lines) > chars:
        lines.pop(0)
    return "\n".join(lines)


def quotation(question: str, passages: Sequence[Passage], *, model: str, note: str = "") -> tuple[AIMessage, Passage]:
    """The first passage, which the search ranks best, word for word; and that passage.

    It is given when no draft rests on the results. A ranking of our own by the question's words did worse: a page that
    repeats the question (an example of a request) beat the one that answers it.
    `note` says why there is no other answer; by default that the drafts of `model` did not rest on the results.
    """
    best = passages[0]
    quoted = "\n".join(f"> {line}" for line in window(best["excerpt"], question, EXCERPT_CHARS).splitlines())
    why = note or f"{model or 'The model'} wrote no answer that the results support."
    text = f"{why} The passage that fits best, word for word:\n\n{quoted}\n\n({best['title']}, {best['uri']})"
    return composed(text, model=model, kind="quotation"), best


def nothing_found(*, model: str, note: str = "", failures: Sequence[str] = ()) -> AIMessage:
    """Says that nothing was found, and which calls failed, if any."""
    text = f"I could not look this up. {' '.join(failures)}" if failures else NOTHING_FOUND
    return composed(f"{note} {text}".strip(), model=model, kind="nothing_found")


def remembered(memories: Sequence[str], *, model: str) -> AIMessage:
    """What is known about the user, listed: what they said in the thread, and what is remembered."""
    text = (
        f"This is what I remember that may fit:\n\n{_listed(memories)}"
        if memories
        else "I remember nothing about this."
    )
    return composed(text, model=model, kind="memories")


def composed(text: str, *, model: str = "", kind: str) -> AIMessage:
    """An answer put together without a model; `composed` in its metadata says which kind.

    `model` names the model that was asked in vain, if any: no tokens are counted for it here.
    """
    metadata = {"composed": kind, **({"model_name": model} if model else {})}
    return AIMessage(
        text,
        id=new_id(),
        response_metadata=metadata,
        usage_metadata=UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0),
    )
