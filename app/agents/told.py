"""What a user has told, in the thread or to be remembered: whether it answers a question about that user.

By words alone: a fact answers "Which tent is my favourite?" when it holds both words. That misses what is told in other
words and never takes a question from the documents or the data without having something to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.agents.classifier import what_to_remember
from app.agents.text import asks, content_words, sentences, words

MOST_FACTS = 5
"""Facts that are shown or listed at most."""
_MAX_CHARS = 500
"""Longest sentence that is a fact: more is pasted text, which holds any word."""

_OF_USER = re.compile(
    r"\b(?:my|mine|myself|me|our|ours)\b|\b(?:am|was|do|did|have|are|were)\s+(?:I|we)\b", re.IGNORECASE
)
_HOW_TO = re.compile(r"\bhow\s+do\s+(?:I|we)\b|\b(?:can|could|should|must|may)\s+(?:I|we)\b", re.IGNORECASE)
_SELF = re.compile(r"\b(?:I|my|mine|we|our)\b", re.IGNORECASE)
_ORDER = re.compile(
    r"^\W*(?:please\s+)?(?:tell|show|list|give|say|repeat|recall|forget|delete|erase|remove|clear)\b", re.IGNORECASE
)
_FORGET = re.compile(r"^\W*(?:please\s+)?(?:forget|delete|erase|remove|clear)\b", re.IGNORECASE)
_GENERAL = frozenset(words("know remember tell told say said ask asked store stored learn learned myself"))
"""What a question about everything that was told consists of: "What do you know about me?"."""


def about_user(message: str) -> bool:
    """Whether a message asks about its user ("my", "am I"), not how the user does something ("how do I", "can I")."""
    return asks(message) and bool(_OF_USER.search(message)) and not _HOW_TO.search(message)


def tells(message: str) -> bool:
    """Whether a message only tells something: it neither asks nor gives an order."""
    return not asks(message) and not _ORDER.search(message)


def wants_forgotten(message: str) -> bool:
    """Whether a message asks to forget something."""
    return bool(_FORGET.search(message))


def facts(messages: Sequence[str]) -> list[str]:
    """The sentences of the user's messages that tell something, in order."""
    found = [what_to_remember(sentence) for message in messages for sentence in sentences(message)]
    return [sentence for sentence in found if tells(sentence) and len(sentence) <= _MAX_CHARS]


def answering(question: str, told: Sequence[str]) -> list[str]:
    """Those of `told` that hold every content word of a question about the user, in order."""
    wanted = _wanted(question)
    if not wanted or not about_user(question):
        return []
    return [fact for fact in told if wanted <= set(content_words(fact))]


def relevant(question: str, told: Sequence[str], memories: Sequence[str]) -> list[str]:
    """What an answer about the user may rest on, of the thread and of what is remembered, best first.

    Only facts that answer the question, where there are any; the last told first, as a correction comes last. A
    question about everything ("What do you know about me?") is met by all that the user tells of themselves.
    """
    last_first = list(told)[::-1]
    found = answering(question, [*last_first, *memories])
    if not found:
        wanted = _wanted(question)
        near = [fact for fact in last_first if (wanted & set(content_words(fact)) if wanted else _SELF.search(fact))]
        found = [*near, *memories]
    return list(dict.fromkeys(found))[:MOST_FACTS]


def _wanted(question: str) -> set[str]:
    return set(content_words(question)) - _GENERAL
