"""A dry run: all items are checked, some URLs are tried by the workers, and nothing is kept."""

from collections import Counter
from functools import partial
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool

from api.intake.bodies import Sink
from api.intake.job_builder import JobBuilder
from api.intake.submission import Submission, take_in
from api.schemas import DryRunOut, HostOut, JobOptions, ModelOut
from api.services import Services
from worker.jobs.items import ItemSpec
from worker.jobs.record import Job, Lane

# What the sample has not scored by then is left out of the answer.
SAMPLE_WAIT_S = 30


async def dry_run(services: Services, owner: str, submission: Submission) -> DryRunOut:
    """Say what a submission would come to.

    Raises:
        PiqueueError: it would be refused.
    """
    intake = await run_in_threadpool(_check, services, owner, submission)
    model = services.catalog.resolve(submission.options.model)
    rate = await run_in_threadpool(services.load.rate_per_s)
    hosts: list[HostOut] = []
    sampled = 0
    if intake.sample:
        hosts, sampled, sample_rate = await _try(
            services, owner, submission.options.model, intake.sample
        )
        rate = rate or sample_rate
    return DryRunOut(
        items=intake.count,
        model=ModelOut(name=model.name, version=model.version, sha256=model.sha256),
        sampled=sampled,
        hosts=hosts,
        eta_s=round(intake.count / rate) if rate else None,
    )


def _check(services: Services, owner: str, submission: Submission) -> JobBuilder:
    with JobBuilder(services, owner, submission.options, keep=False) as intake:
        submission.feed(intake)
        intake.check()
        return intake


async def _try(
    services: Services, owner: str, model: str | None, sample: list[ItemSpec]
) -> tuple[list[HostOut], int, float]:
    """Score the sample as a small job; gives its hosts, how many were done, items a second."""

    def feed(sink: Sink) -> None:
        for index, spec in enumerate(sample):
            sink.add(ItemSpec(str(index), spec.url))

    options = JobOptions(model=model, name="dry run", priority=Lane.INTERACTIVE)
    submission = Submission(options, feed, fleeting=True)
    job, _ = await run_in_threadpool(take_in, services, owner, submission)
    try:
        job = await services.waiters.wait_done(
            job.id, partial(services.store.job, job.id), SAMPLE_WAIT_S
        )
        return await run_in_threadpool(_hosts, services, job)
    finally:
        await run_in_threadpool(services.store.erase, job.id)


def _hosts(services: Services, job: Job) -> tuple[list[HostOut], int, float]:
    sampled: Counter[str] = Counter()
    failures: dict[str, Counter[str]] = {}
    for found in services.store.results(job):
        host = urlsplit(found.spec.url or "").hostname or ""
        sampled[host] += 1
        if found.result.rejection:
            failures.setdefault(host, Counter())[found.result.rejection.code] += 1
    hosts = [
        HostOut(host=host, sampled=count, failures=failures.get(host, {}))
        for host, count in sampled.items()
    ]
    hosts.sort(key=lambda host: (-sum(host.failures.values()), host.host))
    elapsed_s = max(1, (job.finished_ms or 0) - (job.started_ms or 0)) / 1000
    rate = job.counts.finished / elapsed_s if job.finished_ms else 0.0
    return hosts, sampled.total(), rate
