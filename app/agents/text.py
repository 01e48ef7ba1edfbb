"""Words, numbers and names of a text: what the lexical rules of classifier and validator compare."""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?", re.UNICODE)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:[.,]\d+)*")
_IDENTIFIER = re.compile(r"\b(?:[A-Z][A-Z0-9]*_[A-Z0-9_]+|[a-z0-9]+(?:_[a-z0-9]+)+|[A-Za-z]+[a-z][A-Z]\w*)\b")
# A wrapped line goes on; a table's row is one sentence, whatever stands in its cells.
_SENTENCE = re.compile(r"(?<=[.!?:])[*_`)\"]*\s+(?![|])|\n\s*\n|\n(?=\s*(?:[-*|#]|\d+[.)]))")
_ASKS = re.compile(
    r"[?？]\s*$|^\W*(?:and\s+|tell me\s+|do you know\s+)?(?:what|who|whose|whom|when|where|which|why|how)\b",
    re.IGNORECASE,
)
_CITATION = re.compile(r"\[\d+\]")

_STOP = frozenset(
    word
    for line in (
        "a about above after again all also am an and any are as at be because been before being below between both",
        "but by can could did do does doing down during each either else etc every few for from further get given",
        "gives had has have having he her here hers him his how however i if in into is it its itself just like many",
        "may me might more most much must my no nor not of off on once one only or other our out over own per please",
        "same she should shall since so some such than that the their them then there therefore these they this those",
        "through to too under until up upon us use used uses using very via was we were what when where whether which",
        "while who whom whose why will with within without would yes you your",
        "answer question text according based following called means mean example result results document documents",
    )
    for word in line.split()
)
_SUFFIXES = ("ations", "ation", "ings", "ing", "ies", "ied", "ers", "er", "ed", "es", "ly", "s", "e")


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """A crude stem of a lower-case word: enough for "claims" to meet "claimed" and "claiming"."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def words(text: str) -> list[str]:
    """Stems of all words, in order."""
    return [stem(word.lower().replace("’", "'").removesuffix("'s")) for word in _WORD.findall(text)]


def content_words(text: str) -> list[str]:
    """Stems of the words that carry meaning, in order."""
    found = (word.lower().replace("’", "'").removesuffix("'s") for word in _WORD.findall(without_citations(text)))
    return [stem(word) for word in found if word not in _STOP and len(word) > 1]


def numbers(text: str) -> set[str]:
    """Numbers in one spelling: `1,000` and `1000.0` are `1000`; citations like [1] and list numbers are left out."""
    plain = re.sub(r"(?m)^\s*\d+[.)]\s+", "", without_citations(text))
    return {_plain_number(found) for found in _NUMBER.findall(plain)}


def _plain_number(text: str) -> str:
    text = text.lstrip("+")
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text):
        text = text.replace(",", "")
    text = text.replace(",", ".")
    if text.count(".") == 1:
        text = text.rstrip("0").rstrip(".")
    return text


def identifiers(text: str) -> set[str]:
    """Names that only a source can supply: `RATE_LIMIT_CALLS`, `thread_id`, `camelCase`."""
    return set(_IDENTIFIER.findall(text))


def names(text: str) -> set[str]:
    """Capitalised words that do not begin a sentence, in lower case: people, places, products."""
    found: set[str] = set()
    for sentence in sentences(text):
        found |= {match[0] for match in re.finditer(r"(?<=[\w,;:(] )[A-Z][a-z]{2,}\b", sentence)}
    return {name.lower() for name in found}


def sentences(text: str) -> list[str]:
    """The sentences of a text, roughly; rows, headings and items of a list count as sentences."""
    return [text[start:end].strip() for start, end in spans(text)]


def spans(text: str) -> list[tuple[int, int]]:
    """Where each sentence of a text begins and ends; between them is white space only."""
    ends = [match.start() + len(match[0].rstrip()) for match in _SENTENCE.finditer(text)] + [len(text)]
    begins = [0, *ends[:-1]]
    return [(begin, end) for begin, end in zip(begins, ends, strict=True) if text[begin:end].strip()]


def asks(text: str) -> bool:
    """Whether a message is a question: it ends as one, or its first word is one that asks."""
    return bool(_ASKS.search(text))


def without_citations(text: str) -> str:
    """The text without marks such as [1]."""
    return _CITATION.sub(" ", text)
