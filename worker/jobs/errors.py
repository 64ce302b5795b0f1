"""Every error Piqueue raises on purpose, as one tree.

PiqueueError
├── SettingsInvalid         a setting is misspelt, out of range or contradicts another
├── JobNotFound             no such job, or it has expired
├── ModelNotFound           no such model, or no such version of it
├── CursorInvalid           a page was asked for with a cursor that none of our answers gave
├── JobRefused              the submission cannot become a job
│   ├── BodyUnreadable      the body is not what its content type says
│   ├── ItemsRefused        some of its items cannot be scored; says which
│   ├── UnsupportedBody     a content type that is not one of ours
│   └── TooLarge            more bytes or items than one job may have
├── UploadRejected          the one picture of a caller that waits got a rejection
├── QueueFull               too much work is waiting already
├── NoAnswer                nothing was scored in the time a caller would wait
├── LedgerUnavailable       Redis does not answer, or refuses writes
└── NotReady                no worker with a warm model is alive
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LISTED_PROBLEMS = 100


class PiqueueError(Exception):
    """An error with a sentence for a person in it."""


class SettingsInvalid(PiqueueError):
    """A setting is misspelt, out of range or contradicts another."""


class JobNotFound(PiqueueError):
    """No such job, or it has expired."""


class ModelNotFound(PiqueueError):
    """No such model, or no such version of it."""


class CursorInvalid(PiqueueError):
    """A page was asked for with a cursor that none of our answers gave."""


class JobRefused(PiqueueError):
    """The submission cannot become a job."""


class BodyUnreadable(JobRefused):
    """The body is not what its content type says."""


class UnsupportedBody(JobRefused):
    """The body has a content type that is not one of ours."""


class TooLarge(JobRefused):
    """More bytes or items than one job may have."""


@dataclass(frozen=True)
class ItemProblem:
    """Why one item was refused at the door; `index` counts the items from 0."""

    index: int
    id: str | None
    detail: str


class ItemsRefused(JobRefused):
    """Some items of the submission cannot be scored; nothing of it was stored."""

    def __init__(self, problems: Sequence[ItemProblem]) -> None:
        super().__init__(f"{len(problems)} of the items cannot be scored; correct or remove them")
        self.problem_count = len(problems)
        self.problems = tuple(problems[:LISTED_PROBLEMS])


class UploadRejected(PiqueueError):
    """The one picture of a caller that waits for its scores got a rejection."""


class QueueFull(PiqueueError):
    """Too much work is waiting already."""

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class NoAnswer(PiqueueError):
    """Nothing was scored in the time a caller would wait."""


class LedgerUnavailable(PiqueueError):
    """Redis does not answer, or refuses writes."""


class NotReady(PiqueueError):
    """No worker with a warm model is alive."""


def describe(problems: Sequence[Mapping[str, Any]]) -> str:
    """Say in one line what pydantic found wrong, and where."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}"
        for problem in problems
    )
