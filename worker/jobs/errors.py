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
├── ThumbnailNotFound       the item has no thumbnail
├── FeaturesNotKept         the job keeps no features
├── ItemNotFound            the job has no such item, or the item has no features
├── NotCompared             the pictures of the job are not compared yet
├── PartsNotFound           the job has no result files on S3
├── PartsNotReady           the manifest of a job's results is not written yet
├── JobNotDraft             the job is no draft, and accepts no more items
├── IdempotencyMismatch     the key was used for another submission
├── IdempotencyInFlight     a submission with this key is still in progress
├── Unauthorized            the API key is missing, unknown or expired
├── ScopeMissing            the API key does not allow this request
├── WrongKeysSent           too many wrong API keys came from this address
├── ForeignRequest          a request without a key may come from another site's page
├── OverQuota               the caller has too many items waiting
├── UploadRejected          the only picture of a waiting caller was rejected
├── QueueFull               too many items are waiting, or there is no room for them
├── NoAnswer                nothing was scored before the caller's deadline
├── LedgerUnavailable       Redis does not answer
│   └── LedgerFull          Redis accepts no writes: its memory or disk is full
├── LedgerReplaced          Redis was emptied or replaced, and the API keys are gone
├── TemporaryFolderUnavailable  the API cannot write a body to its temporary folder
├── StorageUnavailable      S3 does not answer, or the folder of uploads cannot be used
└── NotReady                no worker with a warm model is alive
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# An answer lists at most this many refused items and counts the others.
LISTED_PROBLEMS = 100
LISTED_IDS = 1000
MAX_DETAIL_CHARS = 2000


@dataclass
class DraftChange:
    """What a request changed in a draft: how many items are new, and how many it had already.

    The first thousand ids of both are listed.
    """

    added_count: int = 0
    added_ids: list[str] = field(default_factory=list)
    existing_count: int = 0
    existing_ids: list[str] = field(default_factory=list)

    def add(self, item_id: str, *, is_new: bool) -> None:
        """Count one item."""
        ids = self.added_ids if is_new else self.existing_ids
        if is_new:
            self.added_count += 1
        else:
            self.existing_count += 1
        if len(ids) < LISTED_IDS:
            ids.append(item_id)


class PiqueueError(Exception):
    """Base of all errors; the text is a sentence for people."""

    # What the request had added to a draft by then.
    draft_change: DraftChange | None = None


class SettingsInvalid(PiqueueError): ...


class JobNotFound(PiqueueError):
    """No such job for this caller, or it has expired."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"no job {job_id}: the id is wrong, the job was deleted or has expired, or it belongs "
            "to another key: check the id and the key"
        )


class ModelNotFound(PiqueueError): ...


class ModelUnavailable(PiqueueError): ...


class CursorInvalid(PiqueueError): ...


class JobRefused(PiqueueError): ...


class BodyUnreadable(JobRefused): ...


class UnsupportedBody(JobRefused): ...


class TooLarge(JobRefused): ...


@dataclass(frozen=True)
class ItemProblem:
    """Why one item was refused before it was stored; `index` counts from 0."""

    index: int
    id: str | None
    detail: str


class ItemsRefused(JobRefused):
    """Some items of the submission are invalid; nothing was stored, but in a draft the others.

    `problems` lists the first hundred of `problem_count`.
    """

    def __init__(self, problems: Sequence[ItemProblem], problem_count: int) -> None:
        super().__init__(f"{problem_count} of the items are refused: correct or remove them")
        self.problems = tuple(problems)
        self.problem_count = problem_count


class ParameterInvalid(PiqueueError): ...


class ResultsChanged(PiqueueError): ...


class NotAcceptable(PiqueueError): ...


class FormatUnavailable(PiqueueError): ...


class JobNotDone(PiqueueError): ...


class WebhookNotFound(PiqueueError): ...


class ThumbnailNotFound(PiqueueError): ...


class PartsNotFound(PiqueueError): ...


class PartsNotReady(PiqueueError): ...


class FeaturesNotKept(PiqueueError): ...


class ItemNotFound(PiqueueError): ...


class ParentGone(PiqueueError): ...


class JobNotDraft(PiqueueError): ...


class IdempotencyMismatch(PiqueueError): ...


class IdempotencyInFlight(PiqueueError): ...


class Unauthorized(PiqueueError): ...


class ScopeMissing(PiqueueError): ...


class ForeignRequest(PiqueueError): ...


class UploadRejected(PiqueueError): ...


class _PushedBack(PiqueueError):
    """Try again after `retry_after_s` seconds."""

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class QueueFull(_PushedBack): ...


class OverQuota(_PushedBack): ...


class WrongKeysSent(_PushedBack): ...


class NotCompared(_PushedBack): ...


class NoAnswer(PiqueueError): ...


class LedgerUnavailable(PiqueueError): ...


class LedgerFull(LedgerUnavailable): ...


class LedgerReplaced(PiqueueError): ...


class TemporaryFolderUnavailable(PiqueueError): ...


class StorageUnavailable(PiqueueError): ...


class NotReady(PiqueueError): ...


def shortened(text: str, most_chars: int = MAX_DETAIL_CHARS) -> str:
    """Cut a text that quotes what a caller sent: no answer is as long as its request."""
    return text if len(text) <= most_chars else f"{text[:most_chars]}…"


# For what pydantic says with the names of our classes, or without what to do.
_SENTENCES = {
    "extra_forbidden": "is not known: remove it, or correct its name",
    "missing": "is missing: add it",
    "model_type": "must be an object, with names in quotes and values",
    "string_type": "must be a string, in quotes",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
}


def describe(problems: Sequence[Mapping[str, Any]], whole: str = "body") -> str:
    """Write pydantic's errors on one line, each with its location, or `whole` if it has none."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or whole}: {sentence(problem)}"
        for problem in problems
    )


def sentence(problem: Mapping[str, Any]) -> str:
    """Write one of pydantic's errors without its location."""
    said: str = problem["msg"]
    said = said.removeprefix("Value error, ").replace("Input should be", "must be")
    said = said.replace("String should have", "must have")
    if problem["type"] == "json_invalid":
        said += ": correct it there"
    said = _SENTENCES.get(problem["type"], said)
    given = problem.get("input")
    if said.startswith("must ") and isinstance(given, str | int | float) and len(str(given)) < 60:
        said += f", and is {given!r}"
    return said
