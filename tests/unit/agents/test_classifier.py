"""What a message is about, by examples, by words and by a model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from app.agents.classifier import (
    LEAST_EXAMPLES,
    ExampleClassifier,
    Intent,
    ModelClassifier,
    asks_to_remember,
    complexity,
    load_intents,
    what_to_remember,
)
from app.infra.errors import ConfigurationError, Unavailable
from app.prompts.registry import PromptRegistry
from tests.support.scripted_model import ScriptedModels

INTENTS = load_intents()


async def along(texts: list[str]) -> list[list[float]]:
    """Vectors by which everything about orders lies in one direction, all else in another."""
    return [[1.0, 0.1] if "order" in text.lower() else [0.1, 1.0] for text in texts]


async def down(texts: list[str]) -> list[list[float]]:
    raise Unavailable("no embeddings")


async def test_the_nearest_examples_decide() -> None:
    """No model call is paid for saying what a message is about."""
    found = await ExampleClassifier(INTENTS, along).classify("order order")
    assert (found.intent, found.by) == ("data", "embedding")


@pytest.mark.parametrize(
    ("message", "nearness", "intent"),
    [
        ("What will the weather be tomorrow?", 0.35, "documents"),
        ("What will the weather be tomorrow", 0.35, "documents"),
        ("How are you doing?", 0.65, "smalltalk"),
        ("It rains again", 0.35, "smalltalk"),
    ],
)
async def test_a_question_is_smalltalk_only_when_it_is_clearly_so(message: str, nearness: float, intent: str) -> None:
    """Smalltalk is answered without looking anything up: a question of facts would get an invention."""
    chat = INTENTS["smalltalk"].examples

    async def beside(texts: list[str]) -> list[list[float]]:
        far = [nearness, 0.1, math.sqrt(1 - nearness**2 - 0.01)]
        return [far if text == message else [1.0, 0.0, 0.0] if text in chat else [0.0, 1.0, 0.0] for text in texts]

    assert (await ExampleClassifier(INTENTS, beside).classify(message)).intent == intent


async def test_examples_are_embedded_once() -> None:
    """A hundred examples for every message would cost a second each time."""
    sizes: list[int] = []

    async def counting(texts: list[str]) -> list[list[float]]:
        sizes.append(len(texts))
        return await along(texts)

    classifier = ExampleClassifier(INTENTS, counting)
    await classifier.classify("one")
    await classifier.classify("two")
    assert sizes == [sum(len(intent.examples) for intent in INTENTS.values()), 1, 1]


@pytest.mark.parametrize(
    ("message", "intent"),
    [
        ("What happens when a worker is killed?", "documents"),
        ("How many orders were cancelled in May?", "data"),
        ("Fetch https://example.com/status", "api"),
        ("What is my name?", "memory"),
        ("Good morning!", "smalltalk"),
    ],
)
async def test_without_embeddings_words_decide(message: str, intent: str) -> None:
    """The embedding server may be away; the service answers all the same."""
    found = await ExampleClassifier(INTENTS, down).classify(message)
    assert (found.intent, found.by) == (intent, "words")


async def test_a_message_like_no_example_is_looked_up() -> None:
    """Searching the documents harms nothing."""
    assert (await ExampleClassifier(INTENTS).classify("xyzzy")).intent == "documents"


@pytest.mark.parametrize(
    ("message", "fact"),
    [
        ("Remember that I live in Graz.", "I live in Graz."),
        ("please remember: my team is Orion", "my team is Orion"),
        ("Don't forget the deploy on Tuesday", "the deploy on Tuesday"),
        ("Remember", "Remember"),
    ],
)
async def test_telling_to_remember_is_seen_without_examples(message: str, fact: str) -> None:
    """It is an order, and what follows it is what is kept."""
    assert asks_to_remember(message)
    assert what_to_remember(message) == fact
    assert (await ExampleClassifier(INTENTS, along).classify(message)).intent == "memory"


def test_asking_what_is_remembered_is_no_order() -> None:
    """Else the question would be kept as a fact."""
    assert not asks_to_remember("What do you remember about me?")


def test_complexity_rises_with_what_is_asked() -> None:
    """It decides which model is paid for; 0.6 is where the expensive one begins."""
    plain = complexity("How long is a lease?")
    several = complexity("How long is a lease, and what happens after it, and who notices?")
    weighing = complexity(
        "Compare leases and locks: explain the trade-offs, and recommend which is better for us and why."
    )
    assert plain < 0.3 <= weighing
    assert plain < several < weighing
    assert 0.6 <= weighing <= 1.0


async def test_a_model_classifies_where_one_is_named() -> None:
    """FAST_CLASSIFIER_MODEL may name one, for messages in languages that the embedding does not know."""
    models = ScriptedModels(json.dumps({"intent": "data", "complexity": 0.7}))
    classifier = ModelClassifier("m", models, PromptRegistry.load(), INTENTS, ExampleClassifier(INTENTS))
    found = await classifier.classify("Wie viele Bestellungen gibt es?")
    assert (found.intent, found.complexity, found.by) == ("data", 0.7, "m")


@pytest.mark.parametrize("reply", ["data, I think", '{"intent": "cooking", "complexity": 0.5}'])
async def test_unusable_output_falls_back_to_the_examples(reply: str) -> None:
    """A turn must not fail for its classification."""
    models = ScriptedModels(reply)
    classifier = ModelClassifier("m", models, PromptRegistry.load(), INTENTS, ExampleClassifier(INTENTS))
    assert (await classifier.classify("Good morning!")).intent == "smalltalk"


def test_too_few_examples_stop_the_start(tmp_path: Path) -> None:
    """With one example an intent would only be found by its own words."""
    path = tmp_path / "intents.yaml"
    path.write_text("greeting:\n  description: says hello\n  examples: [hello]\n")
    with pytest.raises(ConfigurationError, match=r"intents\.yaml: greeting\.examples: .*at least 12"):
        load_intents(path)


def test_no_example_stands_under_two_intents() -> None:
    """It would vote against itself."""
    examples = [example for intent in INTENTS.values() for example in intent.examples]
    assert len(examples) == len({example.lower() for example in examples})
    assert all(isinstance(intent, Intent) and len(intent.examples) >= LEAST_EXAMPLES for intent in INTENTS.values())
