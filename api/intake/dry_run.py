"""A dry run: all items are checked, workers try a sample of the URLs, and nothing is kept."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool

from api.intake.items import ItemReceiver
from api.intake.job_builder import SMALL_JOB_CHUNKS, JobBuilder
from api.intake.submission import Submission, submit
from api.schemas import DryRunOut, HostOut, JobOptions
from api.services import Services
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.record import Job, Lane

# The response leaves out what is not scored by then.
SAMPLE_WAIT_S = 30
# The first pictures may pay for loading a model and for starting the processes that decode. So many
# are scored before the others, each as a chunk of its own, so that as many threads are ready.
WARM_UP_ITEMS = SMALL_JOB_CHUNKS


async def dry_run(services: Services, owner: str, submission: Submission) -> DryRunOut:
    """Report what a submission would do.

    Raises:
        PiqueueError: it would be refused.
    """
    builder = await submission.threads.run(owner, _check, services, owner, submission)
    reference = submission.options.reference
    tried = await _try(services, owner, reference, builder.sample)
    recent = await run_in_threadpool(lambda: services.load.rate().items)
    rate = rate_of([job for job, _ in tried], recent)
    results = [result for _, of_job in tried for result in of_job]
    return DryRunOut(
        items=builder.count,
        model=services.catalog.resolve(reference),
        sampled=len(results),
        hosts=_hosts(results),
        eta_s=round(builder.count / rate) if rate else None,
    )


def rate_of(tried: Sequence[Job], recent: float) -> float:
    """Items per second: that of the last job that was tried, or `recent` if that is higher.

    `recent` is the rate of the last minute, which may have been idle. Without any rate it is 0.
    """
    if not tried or not tried[-1].status.done:
        return recent
    job = tried[-1]
    elapsed_s = max(1, (job.finished_ms or 0) - (job.started_ms or 0)) / 1000
    return max(recent, job.counts.finished / elapsed_s)


def _check(services: Services, owner: str, submission: Submission) -> JobBuilder:
    with JobBuilder(services, owner, submission.options, check_only=True) as builder:
        submission.add_items_to(builder)
        builder.check()
        return builder


async def _try(
    services: Services, owner: str, model: str | None, sample: Sequence[ItemSpec]
) -> list[tuple[Job, list[StoredResult]]]:
    """Score the sample as one or two small jobs: one to warm up, and one whose rate counts."""
    deadline = time.monotonic() + SAMPLE_WAIT_S
    warm_up, rest = sample[:WARM_UP_ITEMS], sample[WARM_UP_ITEMS:]
    tried = []
    for part in filter(None, (warm_up, rest)):
        left_s = deadline - time.monotonic()
        tried.append(await _score(services, owner, model, part, left_s))
        if not tried[-1][0].status.done:
            break
    return tried


async def _score(
    services: Services, owner: str, model: str | None, sample: Sequence[ItemSpec], wait_s: float
) -> tuple[Job, list[StoredResult]]:
    """Score items as a job for at most `wait_s`, and erase it; gives it and its results."""

    def add_items_to(items: ItemReceiver) -> None:
        for index, spec in enumerate(sample):
            items.add(ItemSpec(str(index), spec.url))

    options = JobOptions(model=model, name="dry run", priority=Lane.INTERACTIVE)
    threads = services.intake_threads
    submission = Submission(options, add_items_to, threads, ephemeral=True)
    job_id, _ = await threads.run(owner, submit, services, owner, submission)
    read = partial(services.store.job, job_id)
    try:
        job = await services.job_events.wait_done(job_id, read, wait_s)
        return job, await run_in_threadpool(lambda: list(services.store.results(job)))
    finally:
        await run_in_threadpool(services.store.erase, job_id)


def _hosts(results: Iterable[StoredResult]) -> list[HostOut]:
    """Count what was tried and what failed, the hosts with most failures first."""
    sampled: Counter[str] = Counter()
    failures: dict[str, Counter[str]] = {}
    for stored in results:
        host = urlsplit(stored.spec.url or "").hostname or ""
        sampled[host] += 1
        if stored.result.rejection:
            failures.setdefault(host, Counter())[stored.result.rejection.code] += 1
    hosts = [
        HostOut(host=host, sampled=count, failures=failures.get(host, {}))
        for host, count in sampled.items()
    ]
    return sorted(hosts, key=lambda host: (-sum(host.failures.values()), host.host))
