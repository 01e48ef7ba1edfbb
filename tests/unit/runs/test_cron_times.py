"""When crons come due: the schedule's fields, time zones, and the two nights a year that clocks change."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runs.schedule.times import check_schedule, check_timezone, next_moment, timezones

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def ms(text: str) -> int:
    """An ISO time with its offset, as ms since 1970."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def following(schedule: str, timezone: str, after: str, times: int) -> list[str]:
    """The next `times` moments, in UTC."""
    found, moment = [], ms(after)
    for _ in range(times):
        upcoming = next_moment(schedule, timezone, moment)
        assert upcoming is not None
        moment = upcoming
        found.append(datetime.fromtimestamp(moment / 1000, UTC).strftime("%m-%d %H:%M"))
    return found


def test_a_schedule_is_read_in_its_time_zone() -> None:
    assert following("30 8 * * MON-FRI", BERLIN, "2026-01-02T12:00+01:00", 2) == ["01-05 07:30", "01-06 07:30"]
    assert following("30 8 * * MON-FRI", "UTC", "2026-01-02T12:00+01:00", 1) == ["01-05 08:30"]


def test_the_moment_itself_is_not_the_next_one() -> None:
    """Else a cron that has just come due would come due again."""
    assert following("0 * * * *", "UTC", "2026-01-01T10:00:00+00:00", 1) == ["01-01 11:00"]
    assert following("0 * * * *", "UTC", "2026-01-01T09:59:59.999+00:00", 1) == ["01-01 10:00"]


def test_a_daily_time_keeps_its_hour_over_the_change_of_clocks() -> None:
    assert following("0 9 * * *", BERLIN, "2026-03-28T00:00+01:00", 2) == ["03-28 08:00", "03-29 07:00"]


def test_a_time_that_is_skipped_in_spring_comes_right_after_the_gap_and_once() -> None:
    """On 2026-03-29 Berlin's clocks go from 2:00 to 3:00: 2:30 is no time, and the day's run must not be dropped."""
    assert following("30 2 * * *", BERLIN, "2026-03-28T12:00+01:00", 2) == ["03-29 01:00", "03-30 00:30"]
    assert following("0,30 2 * * *", BERLIN, "2026-03-28T12:00+01:00", 2) == ["03-29 01:00", "03-30 00:00"]


def test_a_time_that_comes_twice_in_autumn_comes_due_the_first_time_only() -> None:
    """On 2026-11-01 New York's clocks go from 2:00 back to 1:00."""
    assert following("30 1 * * *", NEW_YORK, "2026-10-31T12:00-04:00", 2) == ["11-01 05:30", "11-02 06:30"]
    between = "2026-11-01T01:10-05:00"  # the second 1:10: the first 1:30 has passed, the second is none
    assert following("30 1 * * *", NEW_YORK, between, 1) == ["11-02 06:30"]


def test_an_interval_stays_an_interval_over_both_changes() -> None:
    assert following("*/30 * * * *", BERLIN, "2026-03-29T00:45+01:00", 4) == [
        "03-29 00:00",
        "03-29 00:30",
        "03-29 01:00",
        "03-29 01:30",
    ]
    assert following("0 * * * *", NEW_YORK, "2026-11-01T00:30-04:00", 3) == [
        "11-01 05:00",
        "11-01 06:00",
        "11-01 07:00",
    ]


def test_leap_days_and_last_days_are_found() -> None:
    assert next_moment("0 0 29 2 *", "UTC", ms("2026-01-01T00:00+00:00")) == ms("2028-02-29T00:00+00:00")
    assert following("0 12 L * *", "UTC", "2026-02-01T00:00+00:00", 2) == ["02-28 12:00", "03-31 12:00"]


@given(
    st.sampled_from(["*/7 * * * *", "0,30 1-3 * * *", "30 2 * * *", "15 */2 * * *", "0 0 1 * *", "59 23 * * SUN"]),
    st.sampled_from([BERLIN, NEW_YORK, "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu", "Pacific/Apia"]),
    st.integers(min_value=ms("2005-01-01T00:00+00:00"), max_value=ms("2035-01-01T00:00+00:00")),
)
def test_the_next_moment_lies_ahead_whatever_the_clocks_do(schedule: str, timezone: str, after: int) -> None:
    """A moment in the past would come due at once, for ever."""
    upcoming = next_moment(schedule, timezone, after)
    assert upcoming is not None
    assert upcoming > after
    assert upcoming % 60_000 == 0


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("0 * * * * *", "has 6 fields"),
        ("60 * * * *", "bad minute"),
        ("0 24 * * *", "bad hour"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 * FOO *", "bad month"),
        ("0 0 * * MON-", "bad day-of-week"),
        ("@daily", "has 1 fields"),
        (f"{'0,' * 200}0 * * * *", "longer than"),
    ],
)
def test_a_wrong_schedule_is_told_which_field_is_wrong_and_what_a_right_one_is(schedule: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        check_schedule(schedule)
    assert "30 8 * * MON-FRI" in str(refused.value)


@given(st.text(alphabet="0123456789*/-,#LWMONJA? ", max_size=30))
def test_any_text_is_either_a_schedule_or_refused_as_none(text: str) -> None:
    """It comes from outside: nothing but ValueError may come of it."""
    try:
        schedule = check_schedule(text)
    except ValueError:
        return
    next_moment(schedule, BERLIN, ms("2026-03-28T12:00+01:00"))


def test_a_time_zone_is_known_by_its_name_in_the_iana_database() -> None:
    assert check_timezone(BERLIN) == BERLIN
    assert {"UTC", NEW_YORK, "Asia/Kathmandu"} <= timezones()
    for wrong in ("", "Berlin", "+01:00", "../etc/passwd", "Europe", "localtime"):
        with pytest.raises(ValueError, match="Europe/Berlin"):
            check_timezone(wrong)
