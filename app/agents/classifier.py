"""Says what a message is about and how difficult it is.

By default without a model call: the intent is that of the labelled examples nearest in meaning, and the difficulty is
measured on the message. With FAST_CLASSIFIER_MODEL naming a model, the model is asked for both.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jsonschema
import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.agents.text import asks, words
from app.infra.errors import ConfigurationError, Unavailable
from app.infra.logging import get_logger
from app.models.clients import ChatModels, UnusableOutput, structured
from app.prompts.registry import PromptRegistry

_log = get_logger(__name__)

INTENTS = Path(__file__).with_name("intents.yaml")
LEAST_EXAMPLES = 12
LEAST_SMALLTALK = 0.4
"""Nearness from which a question is taken for smalltalk, whose answer rests on nothing: a joke may, the weather not."""
NEAREST = 5
"""Examples that vote; an odd few, so that one odd example does not decide."""

Embed = Callable[[list[str]], Awaitable[Any]]
"""Texts → one vector each, as anything numpy takes. Raises `Unavailable` when it cannot."""


class Intent(BaseModel):
    """An intent as `intents.yaml` describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field(min_length=1)
    examples: tuple[str, ...] = Field(min_length=LEAST_EXAMPLES)


@dataclass(frozen=True, slots=True)
class Classification:
    """`by` says how it was found: a model's name, `embedding` or `words`."""

    intent: str
    complexity: float
    by: str


class Classifier(Protocol):
    """Whatever classifies."""

    async def classify(self, message: str) -> Classification:
        """Never fails for a message: in doubt it is `documents`, which is the harmless way to look for an answer."""
        ...


def load_intents(path: Path = INTENTS) -> dict[str, Intent]:
    """The intents of a file. Raises `ConfigurationError` naming the intent and the field."""
    try:
        return TypeAdapter(dict[str, Intent]).validate_python(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path.name}: not valid YAML: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(
            "\n".join(
                f"{path.name}: {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_input=False)
            )
        ) from error


_REMEMBER = re.compile(
    r"^\s*(?:please\s+|could you\s+|can you\s+)?(?:remember|note down|note|keep in mind|don['’]?t forget|memori[sz]e)\b"
    r"(?!\s*\?)(?:\s+that\b)?[\s:,]*",
    re.IGNORECASE,
)


def asks_to_remember(message: str) -> bool:
    """Whether a message begins by telling to remember something: clearer than any nearness."""
    return _REMEMBER.match(message) is not None


def what_to_remember(message: str) -> str:
    """The fact in "Please remember that …"; the whole message where nothing would be left."""
    return message[match.end() :].strip() or message if (match := _REMEMBER.match(message)) else message


_PARTS = re.compile(r"\b(?:and|or|then|also|versus|vs|but)\b|[;?]", re.IGNORECASE)
_WEIGHING = re.compile(
    r"\b(?:compare|comparison|difference|differ|versus|vs|trade-?offs?|pros|cons|why|explain|analy[sz]e|evaluate|"
    r"design|recommend|should|best|better|step by step|in detail|depends?|impact|relationship|consequences?)\b",
    re.IGNORECASE,
)


def complexity(message: str) -> float:
    """How difficult a message is, 0 to 1, by what can be counted: its length, its parts, words that ask to weigh.

    The weights are set so that a plain question stays below 0.3 and one that compares several things comes above 0.6.
    """
    length = min(len(words(message)) / 80, 1.0)
    parts = min(max(len(_PARTS.findall(message)) - 1, 0) / 4, 1.0)
    weighing = min(len({match.lower() for match in _WEIGHING.findall(message)}) / 2, 1.0)
    return round(min(0.35 * length + 0.3 * parts + 0.5 * weighing, 1.0), 2)


class ExampleClassifier:
    """Nearest examples by meaning; by words where no embedding is available."""

    def __init__(self, intents: Mapping[str, Intent], embed: Embed | None = None) -> None:
        self._labels = [name for name, intent in intents.items() for _ in intent.examples]
        self._examples = [example for intent in intents.values() for example in intent.examples]
        self._embed = embed
        self._vectors: Any = None
        self._bags = [Counter(words(example)) for example in self._examples]
        seen = Counter(word for bag in self._bags for word in bag)
        self._rarity = {word: math.log(1 + len(self._bags) / count) for word, count in seen.items()}

    async def classify(self, message: str) -> Classification:
        if asks_to_remember(message):
            return Classification("memory", complexity(message), "words")
        nearness, by = await self._nearness(message)
        votes: Counter[str] = Counter()
        order = [int(index) for index in np.argsort(nearness)[::-1]]
        for index in order[:NEAREST]:
            # Squared, so that one near example outweighs several far ones.
            votes[self._labels[index]] += max(float(nearness[index]), 0.0) ** 2  # type: ignore[assignment]
        intent, weight = votes.most_common(1)[0]
        nearest = order[0]
        if intent == "smalltalk" and asks(message):
            clear = self._labels[nearest] == intent and nearness[nearest] >= LEAST_SMALLTALK
            intent = intent if clear else "documents"
        return Classification(intent if weight > 0 else "documents", complexity(message), by)

    async def _nearness(self, message: str) -> tuple[Any, str]:
        if self._embed is not None:
            try:
                if self._vectors is None:
                    self._vectors = _unit(np.asarray(await self._embed(self._examples), dtype=np.float32))
                vector = _unit(np.asarray(await self._embed([message]), dtype=np.float32))[0]
            except Unavailable:
                _log.warning("classify.embedding_unavailable", exc_info=True)
            else:
                return self._vectors @ vector, "embedding"
        bag = Counter(words(message))
        return np.array([self._likeness(bag, example) for example in self._bags]), "words"

    def _likeness(self, one: Counter[str], other: Counter[str]) -> float:
        """Cosine of two bags of words, rare words counting more."""

        def weight(word: str) -> float:
            return self._rarity.get(word, math.log(1 + len(self._bags)))

        shared = sum(weight(word) ** 2 for word in one.keys() & other.keys())
        sizes = math.sqrt(sum(weight(word) ** 2 for word in one) * sum(weight(word) ** 2 for word in other))
        return shared / sizes if sizes else 0.0


def _unit(vectors: Any) -> Any:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


class ModelClassifier:
    """Asks a model; falls back to the examples when it gives nothing usable."""

    def __init__(
        self,
        name: str,
        models: ChatModels,
        prompts: PromptRegistry,
        intents: Mapping[str, Intent],
        fallback: Classifier,
    ) -> None:
        self._name, self._models, self._prompts, self._fallback = name, models, prompts, fallback
        self._listed = "\n".join(f"- {name}: {intent.description}" for name, intent in intents.items())
        self._schema = {
            "title": "classification",
            "description": "What the message is about and how difficult it is.",
            "type": "object",
            "properties": {
                "intent": {"type": "string", "enum": list(intents)},
                "complexity": {"type": "number", "minimum": 0, "maximum": 1},
            },
            "required": ["intent", "complexity"],
            "additionalProperties": False,
        }

    async def classify(self, message: str) -> Classification:
        prompt = self._prompts.get("classify")
        name = prompt.model or self._name
        try:
            found = await structured(
                self._models,
                name,
                prompt.messages(intents=self._listed, message=message),
                self._schema,
                temperature=prompt.temperature,
            )
            jsonschema.validate(found, self._schema)
        except (UnusableOutput, jsonschema.ValidationError):
            _log.warning("classify.unusable_output", model=name)
            return await self._fallback.classify(message)
        return Classification(found["intent"], round(float(found["complexity"]), 2), name)
