"""The chat models that are made, and JSON from them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

from app.infra.settings import ModelSettings
from app.models.clients import Clients, UnusableOutput, json_object


def clients(**values: Any) -> Clients:
    given = {"openai_base_url": "http://127.0.0.1:8001/v1", "anthropic_api_key": "k", **values}
    return Clients(ModelSettings(_env_file=None, **given))


def test_a_compatible_server_is_asked_for_usage_and_needs_no_key() -> None:
    """Without `stream_usage` streamed answers would be free in every budget."""
    model = cast(ChatOpenAI, clients().chat("smollm2-135m-instruct"))
    assert model.stream_usage
    assert model.openai_api_base == "http://127.0.0.1:8001/v1"
    assert model.max_tokens == 96, "the registry's limit is below the settings'"
    assert model.temperature == 0.0


def test_a_model_that_refuses_a_temperature_gets_none() -> None:
    """OpenAI's reasoning models answer 400 to one."""
    assert cast(ChatOpenAI, clients().chat("gpt-5", temperature=0.3)).temperature is None


def test_anthropic_has_its_own_client() -> None:
    """With the settings' time and length."""
    model = cast(ChatAnthropic, clients(model_max_output_tokens=500).chat("claude-sonnet-4-5", temperature=0.3))
    assert (model.max_tokens, model.temperature, model.default_request_timeout) == (500, 0.3, 60.0)


def test_a_client_is_made_once() -> None:
    """It holds the connections."""
    made = clients()
    assert made.chat("gpt-5-mini") is made.chat("gpt-5-mini")
    assert made.chat("gpt-4o") is not made.chat("gpt-4o", temperature=0.5)


def test_no_key_shows_in_a_client() -> None:
    """Clients end up in logs and traces."""
    assert "very-secret" not in repr(clients(openai_api_key="very-secret").chat("gpt-5"))


@pytest.mark.parametrize("text", ["", "no JSON", "[1, 2]", '{"a": '])
def test_no_object_is_an_error_that_keeps_the_output(text: str) -> None:
    """Whoever asked may ask again, and quote it."""
    with pytest.raises(UnusableOutput) as caught:
        json_object(text)
    assert caught.value.output == text


@pytest.mark.parametrize("text", ['{"a": {"b": 1}}', 'So: {x} is wrong, {"a": {"b": 1}} is right.'])
def test_the_first_object_counts(text: str) -> None:
    """Whatever stands around it."""
    assert json_object(text) == {"a": {"b": 1}}
