"""Checks that an answer rests on the results it was written from.

Deterministic first, and alone by default: figures, names and identifiers of the answer must stand in the results, and
so must most of its other words. It finds inventions, not wrong conclusions from right words ("is" for "is not");
`judge` asks a model for a second opinion where ANSWER_JUDGE_MODEL names one. Measured on labelled pairs in
`tests/unit/agents/test_validator.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema

from app.agents.text import content_words, identifiers, names, numbers, sentences, words
from app.infra.logging import get_logger
from app.models.clients import ChatModels, UnusableOutput, structured
from app.prompts.registry import PromptRegistry

_log = get_logger(__name__)

LEAST_SUPPORT = 0.6
"""Share of the answer's content words and figures that must stand in the results. Paraphrase needs room below 1."""
LEAST_TOLD_SUPPORT = 0.3
"""The same where the evidence is what the user has told: the answer is mostly courtesy around one fact."""
LEAST_SENTENCE_SUPPORT = 0.35
"""The same for each sentence of at least `_SENTENCE_WORDS` such words: one invention must not hide among true ones."""
_SENTENCE_WORDS = 4
_LOOP_WORDS, _LOOP_TIMES = 5, 2
LEAST_NEWS = 0.25
"""Share of the answer's content words that are not the question's, where it holds no figure."""

_REFUSAL = re.compile(
    r"\b(?:(?:do|does|did|could|can)(?:\s+not|n['’]t)\s+(?:say|hold|contain|mention|answer|provide|specify|state|include|"
    r"find|know)|cannot\s+(?:answer|find|say)|no\s+(?:information|mention|answer|results?)\b|"
    r"not\s+(?:mentioned|stated|specified|given|provided|contained|found|documented)|nothing\s+(?:is|was|about)|"
    r"is\s+missing|are\s+missing)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Grounding:
    """What the check found. `score` is the share of the answer's content that the results support, 0 to 1."""

    grounded: bool
    score: float
    problems: tuple[str, ...] = ()
    refusal: bool = False
    """The answer says that the results do not hold what was asked."""


def check(
    answer: str,
    evidence: Sequence[str],
    question: str = "",
    known: Sequence[str] = (),
    *,
    least: float = LEAST_SUPPORT,
) -> Grounding:
    """Whether `answer` rests on `evidence`, the texts of the results.

    Words of the question count neither for nor against: repeating it is no evidence. `known` (what is remembered of
    the user) supports an answer as the results do. `least` is the share that must be supported.
    """
    text = "\n".join([*evidence, *known])
    if not words(answer):
        return Grounding(False, 0.0, ("the answer is empty",))
    refusal = bool(_REFUSAL.search(sentences(answer)[0]))
    problems = [
        *_missing("the number", numbers(answer) - numbers(text) - numbers(question)),
        *_missing("the name", {name for name in identifiers(answer) if name not in text and name not in question}),
        *_missing("the name", _foreign(names(answer), f"{text}\n{question}")),
    ]
    supported, asked = set(words(text)), set(words(question))
    said = set(content_words(answer))
    matter = said - asked
    figures = numbers(answer) - numbers(question)
    count = len(matter) + len(figures)
    score = (sum(word in supported for word in matter) + len(figures & numbers(text))) / count if count else 0.0
    if not refusal:
        if not figures and (not matter or len(matter) < LEAST_NEWS * len(said)):
            problems.append("it only repeats the question")
        elif figures and not said and "[" not in answer:
            problems.append("a figure alone does not show where it comes from")
        elif score < least:
            problems.append(f"only {score:.0%} of what it says is supported")
    if _loops(answer):
        problems.append("it repeats itself")
    for sentence in sentences(answer)[int(refusal) :]:
        own = [word for word in content_words(sentence) if word not in asked]
        if len(own) >= _SENTENCE_WORDS and sum(word in supported for word in own) < LEAST_SENTENCE_SUPPORT * len(own):
            problems.append(f'not supported: "{sentence[:120]}"')
    return Grounding(not problems, round(score, 2), tuple(problems), refusal)


def _loops(answer: str) -> bool:
    """Whether some run of words comes again and again, which is how a small model fails to end."""
    told = words(answer)
    runs = Counter(zip(*(told[start:] for start in range(_LOOP_WORDS)), strict=False))
    return any(count > _LOOP_TIMES for count in runs.values())


def _missing(kind: str, missing: set[str]) -> list[str]:
    return [f"{kind} {value} is not in the results" for value in sorted(missing)]


def _foreign(found: set[str], text: str) -> set[str]:
    low, stems = text.lower(), set(words(text))
    return {name for name in found if name.lower() not in low and not set(words(name)) <= stems}


_JUDGEMENT: dict[str, Any] = {
    "title": "judgement",
    "description": "Whether the answer rests on the results.",
    "type": "object",
    "properties": {
        "grounded": {"type": "boolean"},
        "unsupported": {"type": "array", "items": {"type": "string"}, "maxItems": 10},
    },
    "required": ["grounded", "unsupported"],
    "additionalProperties": False,
}


async def judge(
    models: ChatModels, prompts: PromptRegistry, name: str, answer: str, passages: str, found: Grounding
) -> Grounding:
    """A model's opinion of an answer that the deterministic check let pass; `found` stays when it gives nothing usable.

    It can only take away: what the check refused is refused without asking.
    """
    if not found.grounded:
        return found
    prompt = prompts.get("judge")
    try:
        verdict = await structured(
            models,
            prompt.model or name,
            prompt.messages(answer=answer, passages=passages),
            _JUDGEMENT,
            temperature=prompt.temperature,
        )
        jsonschema.validate(verdict, _JUDGEMENT)
    except (UnusableOutput, jsonschema.ValidationError):
        _log.warning("validate.judge_unusable", model=name)
        return found
    if verdict["grounded"]:
        return found
    problems = tuple(f'not supported: "{text[:120]}"' for text in verdict["unsupported"])
    return Grounding(False, found.score, problems or ("the judge finds it unsupported",), found.refusal)
