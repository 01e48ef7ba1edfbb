"""Which errors are worth another try, and after what pause."""

from __future__ import annotations

import random
from datetime import timedelta

from app.infra.errors import Unavailable

_TRANSIENT_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP status of a model provider after which the same request may succeed (529: Anthropic, overloaded)."""

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 30.0
_LONGEST_ASKED_SECONDS = 3600.0
"""Longest pause that a provider's `Retry-After` is followed for."""


def is_transient(error: BaseException) -> bool:
    """Whether the same attempt may succeed later: outages, time-outs, throttling. Never for a bug or a bad request."""
    if isinstance(error, Unavailable | TimeoutError | ConnectionError):
        return True
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in _TRANSIENT_STATUS
    # openai, anthropic and httpx name these alike and share no base class.
    return any(base.__name__ in ("APIConnectionError", "TransportError") for base in type(error).__mro__)


def pause_after(error: BaseException, attempt: int) -> timedelta:
    """Pause before trying again after `error` ended attempt number `attempt`: what the provider asked for, if more."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    asked = str(headers.get("retry-after", ""))
    seconds = min(float(asked), _LONGEST_ASKED_SECONDS) if asked.isascii() and asked.isdigit() else 0.0
    return max(timedelta(seconds=seconds), backoff(attempt))


def backoff(attempt: int) -> timedelta:
    """Pause before the attempt after number `attempt`: doubling from 0.5 s to 30 s, with full jitter.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    longest = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** (attempt - 1))
    return timedelta(seconds=random.uniform(longest / 4, longest))  # noqa: S311 - spreads load, hides nothing
