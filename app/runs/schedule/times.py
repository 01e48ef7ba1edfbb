"""When a cron runs: five-field cron expressions in a time zone, by `cronsim`.

Summer time follows Debian's cron, as cronsim does. Where minute and hour are both fixed, a time that the change of
clocks skips runs right after the gap, and a time that comes twice runs the first time only. Where either begins with
`*`, the schedule follows the elapsed time: every ten minutes stays every ten minutes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_LONGEST_EXPRESSION = 200
_EXAMPLE = "example: `30 8 * * MON-FRI`, which is 8:30 from Monday to Friday (minute hour day month weekday)"


@cache
def timezones() -> frozenset[str]:
    """Names of the IANA time zones, the same on every machine."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


def check_timezone(timezone: str) -> str:
    """`timezone`, when there is one of that name. Raises ValueError."""
    if timezone not in timezones():
        raise ValueError("no such time zone; use a name of the IANA database, such as Europe/Berlin or UTC")
    return timezone


def check_schedule(expression: str) -> str:
    """`expression` with single spaces. Raises ValueError that says which field is wrong, with an example."""
    fields = expression.split()
    if len(expression) > _LONGEST_EXPRESSION:
        raise ValueError(f"is longer than {_LONGEST_EXPRESSION} characters; {_EXAMPLE}")
    if len(fields) != 5:
        raise ValueError(f"has {len(fields)} fields instead of five; {_EXAMPLE}")
    try:
        CronSim(expression, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(f"{str(error)[0].lower()}{str(error)[1:]}; {_EXAMPLE}") from error
    return " ".join(fields)


def next_moment(expression: str, timezone: str, after_ms: int) -> int | None:
    """The first moment of the schedule after `after_ms`, both in ms since 1970; None when none comes in 50 years.

    Raises ValueError for a schedule or a time zone that is none.
    """
    after = datetime.fromtimestamp(after_ms / 1000, ZoneInfo(check_timezone(timezone)))
    for moment in CronSim(check_schedule(expression), after):
        # In the hour that comes twice cronsim answers with the first of the two, which may have passed.
        if (found := round(moment.timestamp() * 1000)) > after_ms:
            return found
    return None
