"""Reads a retry together with the jobs it descends from."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from worker.jobs.errors import JobNotFound, ParentGone
from worker.jobs.ledger.reader import JobReader, StoredResult
from worker.jobs.record import Job


def ancestry(store: JobReader, job: Job) -> list[Job]:
    """Return the first job, its retry, the retry of that, and so on down to `job`.

    Raises:
        ParentGone: one of them was deleted or has expired.
    """
    line = [job]
    while parent_id := line[-1].parent_job:
        try:
            line.append(store.job(parent_id))
        except JobNotFound:
            raise ParentGone(
                f"{line[-1].id} is a retry of {parent_id}, which was deleted or has expired: "
                "read it without merge=parents"
            ) from None
    return line[::-1]


def newest_results(
    store: JobReader, line: Sequence[Job], start_index: int = 0
) -> Iterator[StoredResult]:
    """Read the items of the first job from `start_index` on, each with its newest result.

    `line` comes from `ancestry`. A few chunks of each job are in memory at a time.
    """
    first, *retries = line
    results = store.results(first, start_index)
    if not retries:
        return results
    retry_start = store.retry_index(retries[0], start_index) if start_index else 0
    return _merge(results, newest_results(store, retries, retry_start))


def _merge(
    results: Iterator[StoredResult], retried: Iterator[StoredResult]
) -> Iterator[StoredResult]:
    """Replace results by those of their retry; both are in index order."""
    newer = next(retried, None)
    for older in results:
        while newer is not None and _parent_index(newer) < older.index:
            newer = next(retried, None)
        if newer is None or _parent_index(newer) > older.index:
            yield older
        else:
            yield replace(newer, index=older.index, spec=older.spec)


def _parent_index(retried: StoredResult) -> int:
    assert retried.spec.parent_index is not None
    return retried.spec.parent_index
