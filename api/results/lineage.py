"""A retry and the jobs it descends from, read as one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from worker.jobs.errors import JobNotFound, ParentGone
from worker.jobs.ledger.reader import JobReader, StoredResult
from worker.jobs.record import Job


def ancestry(store: JobReader, job: Job) -> list[Job]:
    """Give the job that was submitted first, its retry, the retry of that, down to `job`.

    Raises:
        ParentGone: one of them was deleted or has expired.
    """
    line = [job]
    while parent_id := line[-1].parent_job:
        try:
            line.append(store.job(parent_id))
        except JobNotFound:
            raise ParentGone(
                f"{line[-1].id} retries {parent_id}, which was deleted or has expired: "
                "read it alone, without merge"
            ) from None
    return line[::-1]


def newest_results(
    store: JobReader, line: Sequence[Job], start_index: int = 0
) -> Iterator[StoredResult]:
    """Read the items of the first job of a line from `start_index` on, each with the newest of
    its results; a few chunks of each job are held at a time."""
    first, *retries = line
    results = store.results(first, start_index)
    if not retries:
        return results
    retry_start = store.retry_index(retries[0], start_index) if start_index else 0
    return _renewed(results, newest_results(store, retries, retry_start))


def _renewed(
    results: Iterator[StoredResult], retried: Iterator[StoredResult]
) -> Iterator[StoredResult]:
    """Put each retried result in the place of the one before; both come in index order."""
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
