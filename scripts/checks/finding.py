"""What a check of `piqueue doctor` found, and what to change."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is: a problem stops work or loses it, a warning will cost something one day."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the report; `advice` says what to change, None where all is well."""

    check: str
    level: Level
    text: str
    advice: str | None = None


Check = Callable[[], Iterator[Finding]]


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, advice: str) -> Finding:
    """It works, and should be changed."""
    return Finding(check, Level.WARNING, text, advice)


def problem(check: str, text: str, advice: str) -> Finding:
    """It does not work, or loses work."""
    return Finding(check, Level.PROBLEM, text, advice)
