"""Passages: the parts of tool results that an answer is written from and that it may name as sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from app.agents.text import content_words, numbers, sentences, spans
from app.tools.registry import ToolResult

FINDERS = frozenset({"search_documents", "recall"})
"""Tools whose findings are always sources."""

EXCERPT_CHARS = 600
"""Length of a source's excerpt and of a quotation: all that the bundled model is shown of a passage."""

LEAST_FIT = 0.75
"""Share of the question's content words that a passage found in lieu must hold to be worth quoting."""


class Passage(TypedDict):
    """One passage: where it stands and what it says."""

    title: str
    uri: str
    excerpt: str


def passages_of(tool: str, result: ToolResult) -> list[Passage]:
    """The passages of a result, best first; none for a failed call or one that found nothing.

    A source without a text of its own (a database table) stands for the result's text. A result without sources is a
    passage itself, except of a tool that finds texts: without one it found nothing.
    """
    if not result.ok:
        return []
    if not result.sources:
        return [] if tool in FINDERS else [Passage(title=tool, uri=f"tool:{tool}", excerpt=result.text)]
    found = [source for source in sorted(result.sources, key=lambda source: -source.score) if source.text]
    if not found:
        titles = ", ".join(source.title for source in result.sources)
        return [Passage(title=titles, uri=result.sources[0].uri, excerpt=result.text)]
    return [Passage(title=source.title, uri=source.uri, excerpt=source.text) for source in found]


def window(text: str, wanted: str, chars: int) -> str:
    """At most `chars` characters of `text`: the run of whole sentences that meets words and figures of `wanted` best.

    `wanted` is what the run must support, an answer, or before there is one what it should answer, the question.
    """
    if len(text) <= chars:
        return text
    parts, looked_for = spans(text), _marks(wanted)
    best, best_hits = text[:chars], 0
    for place, (start, _) in enumerate(parts):
        fitting = [end for _, end in parts[place:] if end - start <= chars]
        if not fitting:
            continue
        taken = text[start : fitting[-1]]
        hits = len(looked_for & _marks(taken))
        if hits > best_hits:
            best, best_hits = taken, hits
    return best.strip()


def fits(passage: Passage, question: str) -> bool:
    """Whether a passage says something of what was asked, by its words: a search gives the nearest, however far."""
    wanted = set(content_words(question))
    held = wanted & set(content_words(window(passage["excerpt"], question, EXCERPT_CHARS)))
    return bool(wanted) and len(held) >= LEAST_FIT * len(wanted)


def _marks(text: str) -> set[str]:
    return {*content_words(text), *numbers(text)}


def sources(answer: str, passages: Sequence[Passage]) -> list[Passage]:
    """What the answer rests on: the passages it cites as [1]; without citations, those that hold its words.

    Each with an excerpt of at most `EXCERPT_CHARS`, cut around what the answer takes from it; each place once.
    """
    cited = [
        (passage, _citing(answer, number)) for number, passage in enumerate(passages, 1) if f"[{number}]" in answer
    ]
    if not cited:
        said = set(content_words(answer))
        shares = [len(said & set(content_words(passage["excerpt"]))) / max(len(said), 1) for passage in passages]
        most = max(shares, default=0.0)
        cited = [
            (passage, answer)
            for passage, share in zip(passages, shares, strict=True)
            if share >= 0.75 * most and share > 0
        ]
    places: dict[str, Passage] = {}
    for passage, part in cited:
        excerpt = window(passage["excerpt"], part, EXCERPT_CHARS)
        places.setdefault(passage["uri"], Passage(title=passage["title"], uri=passage["uri"], excerpt=excerpt))
    return list(places.values())


def _citing(answer: str, number: int) -> str:
    """The sentences of the answer that cite the passage of that number; all where the mark stands alone."""
    citing = " ".join(sentence for sentence in sentences(answer) if f"[{number}]" in sentence)
    return citing if _marks(citing) else answer
