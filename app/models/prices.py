"""What model calls cost, in US dollars, by the price lists of `genai-prices`."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from app.models.registry import read


@cache
def _free() -> frozenset[str]:
    return frozenset(entry.name for entry in read().values() if entry.price == "free")


def cost(usage_by_model: Mapping[str, Mapping[str, Any]]) -> Decimal | None:
    """The cost of `usage_by_model` (model → LangChain's usage metadata), in US dollars.

    0 for no usage and for models that run on our own machine. None as soon as one model's price is unknown: a sum
    that leaves a part out would look like a bargain.
    """
    total = Decimal(0)
    for model, usage in usage_by_model.items():
        price = _price(model, usage)
        if price is None:
            return None
        total += price
    return total


def _price(model: str, usage: Mapping[str, Any]) -> Decimal | None:
    if model in _free():
        return Decimal(0)
    from genai_prices import Usage, calc_price  # 1.6 MB of prices: only who asks for a price pays for them

    details = usage.get("input_token_details") or {}
    try:
        return calc_price(
            Usage(
                input_tokens=int(usage.get("input_tokens", 0)),
                output_tokens=int(usage.get("output_tokens", 0)),
                # LangChain counts cached tokens inside input_tokens, as genai-prices wants it.
                cache_read_tokens=details.get("cache_read") or None,
                cache_write_tokens=details.get("cache_creation") or None,
            ),
            model,
        ).total_price
    except LookupError:
        return None
