"""A dry run: all items are checked, workers try a sample of the URLs, and nothing is kept."""

from collections import Counter
from functools import partial
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool

from api.intake.items import ItemReceiver
from api.intake.job_builder import JobBuilder
from api.intake.submission import Submission, submit
from api.schemas import DryRunOut, HostOut, JobOptions
from api.services import Services
from worker.jobs.items import ItemSpec
from worker.jobs.record import Job, Lane

# The response leaves out what is not scored by then.
SAMPLE_WAIT_S = 30


async def dry_run(services: Services, owner: str, submission: Submission) -> DryRunOut:
    """Report what a submission would do.

    Raises:
        PiqueueError: it would be refused.
    """
    builder = await submission.threads.run(owner, _check, services, owner, submission)
    reference = submission.options.reference
    rate = await run_in_threadpool(lambda: services.load.rate().items)
    hosts: list[HostOut] = []
    sampled = 0
    if builder.sample:
        hosts, sampled, sample_rate = await _try(services, owner, reference, builder.sample)
        # The last minute may have been idle.
        rate = max(rate, sample_rate)
    return DryRunOut(
        items=builder.count,
        model=services.catalog.resolve(reference),
        sampled=sampled,
        hosts=hosts,
        eta_s=round(builder.count / rate) if rate else None,
    )


def _check(services: Services, owner: str, submission: Submission) -> JobBuilder:
    with JobBuilder(services, owner, submission.options, check_only=True) as builder:
        submission.add_items_to(builder)
        builder.check()
        return builder


async def _try(
    services: Services, owner: str, model: str | None, sample: list[ItemSpec]
) -> tuple[list[HostOut], int, float]:
    """Score the sample as a small job; return its hosts, the finished items and their rate."""

    def add_items_to(items: ItemReceiver) -> None:
        for index, spec in enumerate(sample):
            items.add(ItemSpec(str(index), spec.url))

    options = JobOptions(model=model, name="dry run", priority=Lane.INTERACTIVE)
    threads = services.intake_threads
    submission = Submission(options, add_items_to, threads, ephemeral=True)
    job_id, _ = await threads.run(owner, submit, services, owner, submission)
    read = partial(services.store.job, job_id)
    try:
        job = await services.job_events.wait_done(job_id, read, SAMPLE_WAIT_S)
        return await run_in_threadpool(_hosts, services, job)
    finally:
        await run_in_threadpool(services.store.erase, job_id)


def _hosts(services: Services, job: Job) -> tuple[list[HostOut], int, float]:
    sampled: Counter[str] = Counter()
    failures: dict[str, Counter[str]] = {}
    for stored in services.store.results(job):
        host = urlsplit(stored.spec.url or "").hostname or ""
        sampled[host] += 1
        if stored.result.rejection:
            failures.setdefault(host, Counter())[stored.result.rejection.code] += 1
    hosts = [
        HostOut(host=host, sampled=count, failures=failures.get(host, {}))
        for host, count in sampled.items()
    ]
    hosts.sort(key=lambda host: (-sum(host.failures.values()), host.host))
    elapsed_s = max(1, (job.finished_ms or 0) - (job.started_ms or 0)) / 1000
    rate = job.counts.finished / elapsed_s if job.finished_ms else 0.0
    return hosts, sampled.total(), rate
