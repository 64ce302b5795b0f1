"""Tallies a job that went through faults: compares its results with what was submitted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from piqueue import Client, Job, Result
from worker.jobs.items import RejectionCode


@dataclass(frozen=True)
class Sent:
    """One item as it was submitted, to recognise its result by."""

    url: str
    sha256: str


@dataclass(frozen=True)
class Tally:
    """Items in and out of a job; `rejected` counts rejections by their code.

    `lost` items have no result at their index, `doubled` ones more than one. `wrong` ones have the
    result of another picture, or both scores and an error, or neither. `miscounted` lists the
    counts of the job that differ from its results.
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
        """Whether every item has exactly one result, its own, and the counts agree."""
        return not (self.lost or self.doubled or self.wrong or self.miscounted)


def tally_job(client: Client, job: Job, sent: Sequence[Sent]) -> Tally:
    """Read all results of a job that is done, and compare them with what was sent."""
    results = list(client.results(job.id))
    counts = Counter(result.index for result in results)
    rejected = Counter(RejectionCode(one.error.code) for one in results if one.error)
    compared = {
        "total": (job.counts.total, len(sent)),
        "waiting": (job.counts.waiting, 0),
        "running": (job.counts.running, 0),
        "cancelled": (job.counts.cancelled, 0),
        "succeeded": (job.counts.succeeded, len(results) - rejected.total()),
        "failed": (job.counts.failed, rejected.total()),
        "failures": (job.failures, dict(rejected)),
    }
    return Tally(
        items_in=len(sent),
        items_out=len(results),
        lost=sum(index not in counts for index in range(len(sent))),
        doubled=counts.total() - len(counts),
        wrong=sum(not _is_of(result, sent) for result in results),
        rejected=rejected,
        miscounted=tuple(
            f"{name}: {shown}, not {true}"
            for name, (shown, true) in compared.items()
            if shown != true
        ),
    )


def _is_of(result: Result, sent: Sequence[Sent]) -> bool:
    """Whether a result belongs to the item at its index, and is either scores or an error."""
    if not 0 <= result.index < len(sent) or (result.scores is None) == (result.error is None):
        return False
    item = sent[result.index]
    fetched = result.image is None or result.image.sha256 == item.sha256
    return fetched and result.source.url == item.url
