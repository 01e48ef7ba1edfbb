"""What the command line prints must be readable by people, and harmless to their terminals."""

from __future__ import annotations

import pytest

from app.cli import render


def test_text_of_users_cannot_steer_the_terminal() -> None:
    """An error class or a user's name may hold escape sequences that clear the screen or answer for the operator."""
    assert render.plain("a\x1b[2Jb\r\nc\u202e") == "a\ufffd[2Jb\ufffd\ufffdc\ufffd"
    assert render.plain("Grüße, 世界") == "Grüße, 世界"


@pytest.mark.parametrize(("value", "text"), [(None, "-"), ("", "-"), (0, "0"), (False, "False")])
def test_nothing_is_a_dash_and_zero_is_zero(value: object, text: str) -> None:
    assert render.plain(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0.4, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h"), (200_000, "2d")],
)
def test_a_length_of_time_has_one_unit(seconds: float, text: str) -> None:
    assert render.span(seconds) == text


def test_columns_are_as_wide_as_what_stands_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    render.table(["run", "status"], [["a-long-id", "error"], ["b", None]], empty="none")
    assert capsys.readouterr().out == "RUN        STATUS\na-long-id  error\nb          -\n"


def test_an_empty_table_leaves_stdout_empty(capsys: pytest.CaptureFixture[str]) -> None:
    """`slipway runs list | wc -l` counts runs."""
    render.table(["run"], [], empty="no runs")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "no runs\n")
