"""What a graph hands out is written as JSON, whatever it is: one bad value must not fail a run."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from langchain_core.messages import AIMessage

from app.runs.encoding import encode

DEEP: dict[str, Any] = {}
_inner = DEEP
for _ in range(300):
    _inner["a"] = {}
    _inner = _inner["a"]
ENDLESS: dict[str, Any] = {}
ENDLESS["a"] = ENDLESS


@pytest.mark.parametrize(
    ("bad", "written"),
    [
        ("half \ud800", "half ?"),
        ({"\ud800": 1}, {"?": 1}),
        (2**70, "<int>"),
        ({(1, 2): 1}, {"<tuple>": 1}),
        ([{"a": "\ud83d", "b": b"xy"}], [{"a": "?", "b": "<2 bytes>"}]),
    ],
    ids=["text", "key of half a character", "integer", "key that is a tuple", "nested"],
)
def test_what_json_cannot_hold_is_replaced_and_the_rest_is_kept(bad: Any, written: Any) -> None:
    """A model may write half of an emoji into a tool call."""
    found = orjson.loads(encode({"bad": bad, "good": [1, "é"], "message": AIMessage("hi")}))
    assert (found["bad"], found["good"], found["message"]["content"]) == (written, [1, "é"], "hi")


@pytest.mark.parametrize("value", [DEEP, ENDLESS], ids=["deep", "endless"])
def test_bottomless_values_are_cut_off(value: dict[str, Any]) -> None:
    assert b"<dict>" in encode({"value": value})


def test_half_a_character_in_a_tool_call_is_replaced() -> None:
    call = {"name": "say", "args": {"text": "\ud83d"}, "id": "c1"}
    found = orjson.loads(encode(AIMessage("", tool_calls=[call])))
    assert found["tool_calls"][0]["args"] == {"text": "?"}
