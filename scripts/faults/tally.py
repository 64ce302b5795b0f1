"""The account of a job that went through faults: what went in, and what came out for it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from api.schemas import JobOut, ResultOut
from piqueue.client import Client
from worker.jobs.items import RejectionCode


@dataclass(frozen=True)
class Sent:
    """One item as it was submitted: what its result is known by."""

    url: str
    sha256: str


@dataclass(frozen=True)
class Account:
    """Items in and out of a job; `rejected` counts rejections by their code.

    `lost` have no result at their index, `doubled` more than one, `wrong` that of another
    picture, or both of scores and error, or neither; `miscounted` says which counts of the job
    are not what its results come to.
    """

    items_in: int
    items_out: int
    lost: int
    doubled: int
    wrong: int
    rejected: Counter[RejectionCode]
    miscounted: tuple[str, ...]

    @property
    def balanced(self) -> bool:
        """Whether every item has exactly one result, its own, and the counts say so."""
        return not (self.lost or self.doubled or self.wrong or self.miscounted)


def account(client: Client, job: JobOut, sent: Sequence[Sent]) -> Account:
    """Read all results of a job that is done, and set them against what was sent."""
    results = list(client.results(job.id))
    seen = Counter(result.index for result in results)
    rejected = Counter(RejectionCode(found.error.code) for found in results if found.error)
    return Account(
        items_in=len(sent),
        items_out=len(results),
        lost=sum(index not in seen for index in range(len(sent))),
        doubled=seen.total() - len(seen),
        wrong=sum(not _is_of(result, sent) for result in results),
        rejected=rejected,
        miscounted=tuple(_miscounted(job, len(sent), len(results) - rejected.total(), rejected)),
    )


def _is_of(result: ResultOut, sent: Sequence[Sent]) -> bool:
    """Whether a result belongs to the item at its index, and is one thing or the other."""
    if not 0 <= result.index < len(sent) or (result.scores is None) == (result.error is None):
        return False
    item = sent[result.index]
    fetched = result.image is None or result.image.sha256 == item.sha256
    return fetched and result.source.url == item.url


def _miscounted(
    job: JobOut, total: int, succeeded: int, rejected: Counter[RejectionCode]
) -> list[str]:
    counts = job.counts
    found = {
        "total": (counts.total, total),
        "waiting": (counts.waiting, 0),
        "running": (counts.running, 0),
        "cancelled": (counts.cancelled, 0),
        "succeeded": (counts.succeeded, succeeded),
        "failed": (counts.failed, rejected.total()),
        "failures": (job.failures, dict(rejected)),
    }
    return [f"{name}: {said}, not {true}" for name, (said, true) in found.items() if said != true]
