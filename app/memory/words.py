"""Search by word: Okapi BM25 over some hundreds or thousands of texts, in memory.

Formula: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with the idf that
Lucene uses (never negative). Own code because the libraries bring no types and more than this one formula.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

_K1: Final = 1.2
_B: Final = 0.75
_WORD = re.compile(r"[^\W_]+(?:_[^\W_]+)*")
_ENDINGS: Final = ("ings", "ing", "edly", "ed", "es", "s")
_STOP: Final = frozenset(
    """
    a an and are as at be been by can do does for from had has have how i if in into is it its me my of on or our she
    so that the their them then there these they this to was we were what when where which who why will with you your
    """.split()  # noqa: SIM905 - as prose, it can be read
)


def terms(text: str) -> list[str]:
    """The words to match by: lower case, without common ones and endings; `WORKER_SLOTS` gives its parts too."""
    found = []
    for word in _WORD.findall(text.lower()):
        parts = word.split("_")
        found += [_stem(part) for part in parts if part not in _STOP]
        if len(parts) > 1:
            found.append(word)
    return found


def _stem(word: str) -> str:
    """Cut the commonest English endings where at least three letters stay."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            return word.removesuffix(ending)
    return word


class WordIndex:
    """BM25 over texts, which are known by their place in the list."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._postings: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        lengths = []
        for place, text in enumerate(texts):
            counts = Counter(terms(text))
            lengths.append(counts.total())
            for term, count in counts.items():
                self._postings[term].append((place, count))
        mean = (sum(lengths) / len(lengths) if lengths else 0.0) or 1.0
        self._norms = [_K1 * (1 - _B + _B * length / mean) for length in lengths]

    def search(self, query: str, limit: int) -> list[tuple[int, float]]:
        """(place, score) of the best `limit` texts that share a word with `query`, best first."""
        scores: defaultdict[int, float] = defaultdict(float)
        for term in set(terms(query)):
            postings = self._postings.get(term, [])
            idf = math.log(1 + (len(self._norms) - len(postings) + 0.5) / (len(postings) + 0.5))
            for place, count in postings:
                scores[place] += idf * count * (_K1 + 1) / (count + self._norms[place])
        return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:limit]
