"""Every error Piqueue raises on purpose, as one tree.

PiqueueError
├── SettingsInvalid         a setting is misspelt, out of range or contradicts another
├── JobNotFound             no such job, or it has expired
├── ModelNotFound           no such model, or no such version of it
├── ModelUnavailable        a model cannot be downloaded, or its hash differs
├── CursorInvalid           a cursor does not come from an earlier answer
├── JobRefused              the submission cannot become a job
│   ├── BodyUnreadable      the body does not match its content type
│   ├── ItemsRefused        some items are invalid; lists them
│   ├── UnsupportedBody     the content type is not supported
│   └── TooLarge            more bytes or items than a job may have
├── ParameterInvalid        a parameter contradicts the job or another parameter
├── NotAcceptable           the requested results format is not supported
├── FormatUnavailable       the library for the requested results format is not installed
├── JobNotDone              a retry or webhook replay needs a job that is done
├── WebhookNotFound         the job has no webhook_url
├── ParentGone              the parent of a retry was deleted or has expired
├── PartsNotFound           the job has no result files on S3
├── PartsNotReady           the manifest of a job's results is not written yet
├── JobNotDraft             the job was already submitted and accepts no more items
├── IdempotencyMismatch     the key was used for another submission
├── IdempotencyInFlight     a submission with this key is still in progress
├── Unauthorized            the API key is missing or unknown
├── OverQuota               the caller has too many items waiting
├── UploadRejected          the only picture of a waiting caller was rejected
├── QueueFull               too many items are waiting
├── NoAnswer                nothing was scored before the caller's deadline
├── LedgerUnavailable       Redis does not answer
│   └── LedgerFull          Redis accepts no writes: its memory or disk is full
├── StorageUnavailable      S3 does not answer, or refuses the request
└── NotReady                no worker with a warm model is alive
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# An answer lists at most this many refused items and counts the others.
LISTED_PROBLEMS = 100


class PiqueueError(Exception):
    """Base of all errors; the text is a sentence for people."""


class SettingsInvalid(PiqueueError):
    """A setting is misspelt, out of range or contradicts another."""


class JobNotFound(PiqueueError):
    """No such job, or it has expired."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id}: the id is wrong, or the job was deleted or has expired")


class ModelNotFound(PiqueueError):
    """No such model, or no such version of it."""


class ModelUnavailable(PiqueueError):
    """A model cannot be downloaded, or its hash differs."""


class CursorInvalid(PiqueueError):
    """A cursor does not come from an earlier answer."""


class JobRefused(PiqueueError):
    """The submission cannot become a job."""


class BodyUnreadable(JobRefused):
    """The body does not match its content type."""


class UnsupportedBody(JobRefused):
    """The content type is not supported."""


class TooLarge(JobRefused):
    """More bytes or items than a job may have."""


@dataclass(frozen=True)
class ItemProblem:
    """Why one item was refused before it was stored; `index` counts from 0."""

    index: int
    id: str | None
    detail: str


class ItemsRefused(JobRefused):
    """Some items of the submission are invalid; nothing was stored.

    `problems` lists the first hundred of `problem_count`.
    """

    def __init__(self, problems: Sequence[ItemProblem], problem_count: int) -> None:
        super().__init__(f"{problem_count} of the items cannot be scored: correct or remove them")
        self.problems = tuple(problems)
        self.problem_count = problem_count


class ParameterInvalid(PiqueueError):
    """A parameter contradicts the job or another parameter."""


class NotAcceptable(PiqueueError):
    """The requested results format is not supported."""


class FormatUnavailable(PiqueueError):
    """The library for the requested results format is not installed."""


class JobNotDone(PiqueueError):
    """A retry or webhook replay needs a job that is done."""


class WebhookNotFound(PiqueueError):
    """The job has no webhook_url."""


class PartsNotFound(PiqueueError):
    """The job has no result files on S3."""


class PartsNotReady(PiqueueError):
    """The manifest of a job's results is not written yet."""


class ParentGone(PiqueueError):
    """The parent of a retry was deleted or has expired."""


class JobNotDraft(PiqueueError):
    """The job was already submitted and accepts no more items."""


class IdempotencyMismatch(PiqueueError):
    """The key was used for another submission."""


class IdempotencyInFlight(PiqueueError):
    """A submission with this key is still in progress."""


class Unauthorized(PiqueueError):
    """The API key is missing or unknown."""


class UploadRejected(PiqueueError):
    """The only picture of a waiting caller was rejected."""


class _PushedBack(PiqueueError):
    """Try again after `retry_after_s` seconds."""

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class QueueFull(_PushedBack):
    """Too many items are waiting."""


class OverQuota(_PushedBack):
    """The caller has too many items waiting."""


class NoAnswer(PiqueueError):
    """Nothing was scored before the caller's deadline."""


class LedgerUnavailable(PiqueueError):
    """Redis does not answer."""


class LedgerFull(LedgerUnavailable):
    """Redis accepts no writes: its memory or disk is full."""


class StorageUnavailable(PiqueueError):
    """S3 does not answer, or refuses the request."""


class NotReady(PiqueueError):
    """No worker with a warm model is alive."""


def describe(problems: Sequence[Mapping[str, Any]]) -> str:
    """Write pydantic's errors on one line, each with its location."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}"
        for problem in problems
    )
