"""Durations that options take."""

from argparse import ArgumentTypeError

import pytest

from piqueue.commands.durations import duration_or_seconds, duration_s


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("30m", 1800), ("12h", 43_200), ("90d", 7_776_000)]
)
def test_a_number_and_a_unit_are_seconds(text: str, seconds: int) -> None:
    assert duration_s(text) == duration_or_seconds(text) == seconds


def test_a_number_alone_is_in_seconds_where_that_is_allowed() -> None:
    assert duration_or_seconds("3600") == 3600
    with pytest.raises(ArgumentTypeError, match="must be a number and a unit"):
        duration_s("3600")


@pytest.mark.parametrize("text", ["", "d", "2w", "-1h", "1.5h", "2 d", "1234567d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="must be a number and a unit, such as 30m"):
        duration_or_seconds(text)
