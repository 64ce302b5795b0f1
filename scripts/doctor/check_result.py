"""The result of a check of `piqueue doctor`: what it found, and what to change."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """A problem stops or loses work; a warning is about a likely later problem."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class CheckResult:
    """One line of the report; `advice` says what to change, None if all is well."""

    check: str
    level: Level
    text: str
    advice: str | None = None


Check = Callable[[], Iterator[CheckResult]]


def ok(check: str, text: str) -> CheckResult:
    """Report that all is well."""
    return CheckResult(check, Level.OK, text)


def warning(check: str, text: str, advice: str) -> CheckResult:
    """Report what works and should be changed."""
    return CheckResult(check, Level.WARNING, text, advice)


def problem(check: str, text: str, advice: str) -> CheckResult:
    """Report what does not work, or loses work."""
    return CheckResult(check, Level.PROBLEM, text, advice)
