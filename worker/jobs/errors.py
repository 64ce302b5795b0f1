"""Every error Piqueue raises on purpose, as one tree.

PiqueueError
├── SettingsInvalid         a setting is misspelt, out of range or contradicts another
├── JobNotFound             no such job, or it has expired
├── ModelNotFound           no such model, or no such version of it
├── ModelUnavailable        a model cannot be downloaded, or is not the one that was meant
├── CursorInvalid           a page was asked for with a cursor that none of our answers gave
├── JobRefused              the submission cannot become a job
│   ├── BodyUnreadable      the body is not what its content type says
│   ├── ItemsRefused        some of its items cannot be scored; says which
│   ├── UnsupportedBody     a content type that is not one of ours
│   └── TooLarge            more bytes or items than one job may have
├── ParameterInvalid        a parameter does not fit the job or the other parameters
├── NotAcceptable           results were asked for in no format of ours
├── FormatUnavailable       results were asked for in a format whose library is not installed
├── JobNotDone              a job that still runs was to be retried, or its webhook replayed
├── WebhookNotFound         a job was submitted without a webhook_url
├── ParentGone              a retry was to be read with its parent, which is there no more
├── PartsNotFound           the results of a job are not on S3
├── PartsNotReady           the manifest of a job's results is not written yet
├── JobNotDraft             items were added to a job that is submitted already
├── IdempotencyMismatch     the key was used before, for another submission
├── IdempotencyInFlight     a submission with this key is being taken in right now
├── Unauthorized            no API key, or one that is not known
├── OverQuota               the caller has too much work waiting
├── UploadRejected          the one picture of a caller that waits got a rejection
├── QueueFull               too much work is waiting already
├── NoAnswer                nothing was scored in the time a caller would wait
├── LedgerUnavailable       Redis does not answer
│   └── LedgerFull          Redis answers and takes no writes: its memory or disk is full
├── StorageUnavailable      S3 does not answer, or refuses what is asked
└── NotReady                no worker with a warm model is alive
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# An answer lists this many refused items and counts the rest.
LISTED_PROBLEMS = 100


class PiqueueError(Exception):
    """An error with a sentence for a person in it."""


class SettingsInvalid(PiqueueError):
    """A setting is misspelt, out of range or contradicts another."""


class JobNotFound(PiqueueError):
    """No such job, or it has expired."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id}: it never was, was deleted or has expired")


class ModelNotFound(PiqueueError):
    """No such model, or no such version of it."""


class ModelUnavailable(PiqueueError):
    """A model cannot be downloaded, or is not the one that was meant."""


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
    """Some items of the submission cannot be scored; nothing of it was stored.

    `problems` lists the first hundred of `problem_count`.
    """

    def __init__(self, problems: Sequence[ItemProblem], problem_count: int) -> None:
        super().__init__(f"{problem_count} of the items cannot be scored; correct or remove them")
        self.problems = tuple(problems)
        self.problem_count = problem_count


class ParameterInvalid(PiqueueError):
    """A parameter does not fit the job it was given for, or the other parameters."""


class NotAcceptable(PiqueueError):
    """Results were asked for in no format of ours."""


class FormatUnavailable(PiqueueError):
    """Results were asked for in a format whose library is not installed."""


class JobNotDone(PiqueueError):
    """A job that still runs was to be retried, or its webhook replayed."""


class WebhookNotFound(PiqueueError):
    """A job was submitted without a webhook_url."""


class PartsNotFound(PiqueueError):
    """The results of a job are not on S3."""


class PartsNotReady(PiqueueError):
    """The manifest of a job's results is not written yet."""


class ParentGone(PiqueueError):
    """A retry was to be read with its parent, which was deleted or has expired."""


class JobNotDraft(PiqueueError):
    """Items were added to a job that is submitted already."""


class IdempotencyMismatch(PiqueueError):
    """The key was used before, for another submission."""


class IdempotencyInFlight(PiqueueError):
    """A submission with this key is being taken in right now."""


class Unauthorized(PiqueueError):
    """No API key, or one that is not known."""


class UploadRejected(PiqueueError):
    """The one picture of a caller that waits for its scores got a rejection."""


class _PushedBack(PiqueueError):
    """Try again after `retry_after_s` seconds."""

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class QueueFull(_PushedBack):
    """Too much work is waiting already."""


class OverQuota(_PushedBack):
    """The caller has too much work waiting."""


class NoAnswer(PiqueueError):
    """Nothing was scored in the time a caller would wait."""


class LedgerUnavailable(PiqueueError):
    """Redis does not answer."""


class LedgerFull(LedgerUnavailable):
    """Redis answers and takes no writes: its memory or disk is full."""


class StorageUnavailable(PiqueueError):
    """S3 does not answer, or refuses what is asked."""


class NotReady(PiqueueError):
    """No worker with a warm model is alive."""


def describe(problems: Sequence[Mapping[str, Any]]) -> str:
    """Say in one line what pydantic found wrong, and where."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}"
        for problem in problems
    )
