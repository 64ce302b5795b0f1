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
class CheckResult:
    """One line of the report; `advice` says what to change, None where all is well."""

    check: str
    level: Level
    text: str
    advice: str | None = None


Check = Callable[[], Iterator[CheckResult]]


def ok(check: str, text: str) -> CheckResult:
    """All is well."""
    return CheckResult(check, Level.OK, text)


def warning(check: str, text: str, advice: str) -> CheckResult:
    """It works, and should be changed."""
    return CheckResult(check, Level.WARNING, text, advice)


def problem(check: str, text: str, advice: str) -> CheckResult:
    """It does not work, or loses work."""
    return CheckResult(check, Level.PROBLEM, text, advice)
