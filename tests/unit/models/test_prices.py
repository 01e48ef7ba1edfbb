"""What calls cost."""

from __future__ import annotations

from decimal import Decimal

from app.models.prices import cost

USAGE = {"input_tokens": 1_000, "output_tokens": 100}


def test_a_listed_model_has_its_price() -> None:
    """By the date of the package's list; so only that there is one, and that it adds up."""
    one = cost({"gpt-5-mini": USAGE})
    assert one is not None
    assert one > 0
    assert cost({"gpt-5-mini": USAGE, "smollm2-135m-instruct": USAGE}) == one


def test_cached_tokens_are_cheaper() -> None:
    """Most of a conversation's prompt is; without them the sum would be too high."""
    cached = {**USAGE, "input_token_details": {"cache_read": 900}}
    full, less = cost({"gpt-5-mini": USAGE}), cost({"gpt-5-mini": cached})
    assert full is not None
    assert less is not None
    assert less < full


def test_our_own_machine_costs_nothing() -> None:
    """The bundled model's price is known: it is zero."""
    assert cost({"smollm2-135m-instruct": USAGE}) == Decimal(0)
    assert cost({}) == Decimal(0)


def test_an_unknown_price_is_unknown() -> None:
    """Zero would look like a gift, and the rest of a sum like the whole."""
    assert cost({"nobody-s-model": USAGE}) is None
    assert cost({"gpt-5-mini": USAGE, "nobody-s-model": USAGE}) is None
