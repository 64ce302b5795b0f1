"""Durations on the command line, such as 30m or 90d."""

import argparse
import re

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration_s(text: str) -> int:
    """The seconds of a number and a unit, for `type` of an option."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError("must be a number and a unit, such as 30m, 24h or 90d")
    return int(match[1]) * _UNITS_S[match[2]]


def duration_or_seconds(text: str) -> int:
    """The same; a number without a unit is in seconds."""
    return int(text) if text.isdecimal() else duration_s(text)
