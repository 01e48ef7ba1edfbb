"""Errors of the service, as a tree.

SlipwayError                 everything we raise on purpose; carries the fix
├── ConfigurationError       a setting is wrong: the start stops
├── Unavailable              a dependency does not answer: try again later (503)
│   └── RedisUnavailable
├── NotFound                 no such thing for this caller (404)
│   ├── RunNotFound
│   └── ThreadNotFound
├── Conflict                 the thing is in a state that does not allow this (409)
│   ├── IdempotencyMismatch
│   ├── ThreadBusy
│   ├── ThreadFull
│   └── NothingAsked
└── StaleEpoch               a newer worker owns the run: stop at once

A type exists where a caller acts differently on it. Texts hold no secret and no reply body.
"""

from __future__ import annotations


class SlipwayError(Exception):
    """Base of every error raised on purpose. `fix` says what the reader can do about it."""

    def __init__(self, text: str, *, fix: str = "") -> None:
        super().__init__(text)
        self.text, self.fix = text, fix

    def __str__(self) -> str:
        return f"{self.text}; {self.fix}" if self.fix else self.text


class ConfigurationError(SlipwayError):
    """A setting, prompt or registry entry is wrong; the process must not start with it."""


class Unavailable(SlipwayError):
    """A dependency does not answer. `retry_after` is the advice to the caller, in seconds."""

    def __init__(self, text: str, *, fix: str = "try again shortly", retry_after: int = 2) -> None:
        super().__init__(text, fix=fix)
        self.retry_after = retry_after


class RedisUnavailable(Unavailable):
    """Redis did not answer in time or refused the connection; nothing is known of the write under way."""


class NotFound(SlipwayError):
    """Nothing of that id belongs to this caller. Another tenant's thing is not found either."""


class RunNotFound(NotFound):
    def __init__(self, run_id: str) -> None:
        super().__init__(f"there is no run {run_id}", fix="use a run_id that this service returned to you")
        self.run_id = run_id


class ThreadNotFound(NotFound):
    def __init__(self, thread_id: str) -> None:
        super().__init__(f"there is no thread {thread_id}", fix="leave thread_id out to begin one; the answer names it")
        self.thread_id = thread_id


class Conflict(SlipwayError):
    """The thing exists but its state does not allow what was asked."""


class IdempotencyMismatch(Conflict):
    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key was used with another request body", fix="use a new key for a new request"
        )


class ThreadBusy(Conflict):
    def __init__(self, thread_id: str) -> None:
        super().__init__(
            f"thread {thread_id} has an unfinished run",
            fix="wait for it, or choose another multitask_strategy: enqueue, interrupt or rollback",
        )


class ThreadFull(Conflict):
    def __init__(self, thread_id: str, most: int) -> None:
        super().__init__(
            f"{most} runs wait behind the unfinished one of thread {thread_id}",
            fix="wait for them, or stop them with the multitask_strategy interrupt",
        )


class NothingAsked(Conflict):
    def __init__(self, thread_id: str) -> None:
        super().__init__(
            f"thread {thread_id} does not wait for an answer",
            fix="it was answered or passed over before: read the thread, and send a message instead",
        )


class StaleEpoch(SlipwayError):
    """A newer worker owns the run: stop this attempt, nothing more of it may be written."""

    def __init__(self, run_id: str, held: int, current: int | None) -> None:
        now = "over" if current is None else f"at epoch {current}"
        super().__init__(
            f"run {run_id} is {now}, this worker holds {held}", fix="end this attempt; the newer worker carries on"
        )
        self.run_id, self.held, self.current = run_id, held, current
