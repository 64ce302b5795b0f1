"""What a report says of the pictures of a job that are nearly the same."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from api.reports.summary import LISTED_PICTURES, Picture
from api.results.similar import similar_pictures
from api.services import Services
from worker.jobs.errors import FeaturesNotKept, JobNotDone
from worker.jobs.models.artifact import ModelCard
from worker.jobs.record import Job
from worker.jobs.storage.similar import SimilarPictures, Summary

LISTED_GROUPS = 5
# A report waits so long for the comparison of a job, which it lets a worker do.
WAIT_S = 5.0
POLL_S = 0.25


@dataclass(frozen=True)
class Duplicates:
    """The counts, None while the pictures are compared, and the largest groups."""

    summary: Summary | None
    groups: list[tuple[int, list[Picture]]]

    @property
    def pictures(self) -> list[Picture]:
        """The pictures that are listed."""
        return [picture for _, pictures in self.groups for picture in pictures]


def duplicates_of(
    services: Services, job: Job, model: ModelCard
) -> tuple[bool, Callable[[], Duplicates | None]]:
    """Give what reads the near-duplicates of a job: None if it keeps no features, or runs.

    The first value is false while its pictures are compared, which this lets a worker do.
    """
    try:
        similar = similar_pictures(services.blobs, job, model)
    except (FeaturesNotKept, JobNotDone):
        return True, no_duplicates
    compared = similar.summary() is not None
    if not compared:
        services.comparisons.request(job.id)
    return compared, lambda: _read(services, job, similar)


def no_duplicates() -> Duplicates | None:
    """The near-duplicates of a job whose pictures are not compared."""
    return None


def _read(services: Services, job: Job, similar: SimilarPictures) -> Duplicates:
    until = time.monotonic() + WAIT_S
    while (summary := similar.summary()) is None and time.monotonic() < until:
        time.sleep(POLL_S)
    if summary is None:
        return Duplicates(None, [])
    largest = [
        (group.count, group.indexes[:LISTED_PICTURES])
        for group in islice(similar.groups(), LISTED_GROUPS)
    ]
    specs = services.store.specs(job, [index for _, indexes in largest for index in indexes])
    groups = [
        (count, [Picture.of(index, specs[index]) for index in indexes])
        for count, indexes in largest
    ]
    return Duplicates(summary, groups)
