"""Tests of the rate by which a dry run estimates the time of a job."""

from dataclasses import replace

import pytest

from api.intake.dry_run import rate_of
from worker.jobs.record import Counts, Job, JobStatus, Lane, ModelRef


def tried(status: JobStatus, finished: int, took_ms: int) -> Job:
    """A job of 46 pictures, of which so many were scored in this time, a second after it began."""
    done_ms = 1_000 + took_ms if status.done else None
    return Job(
        id="job_1",
        owner="*",
        status=status,
        model=ModelRef("scenes", "5", "0" * 64),
        lane=Lane.INTERACTIVE,
        counts=Counts(46, 0, finished, 0, 0),
        chunk_items=12,
        created_ms=0,
        expires_ms=60_000,
        started_ms=1_000,
        finished_ms=done_ms,
    )


COLD = tried(JobStatus.SUCCEEDED, finished=4, took_ms=1_600)
WARM = tried(JobStatus.SUCCEEDED, finished=46, took_ms=400)


def test_the_pictures_that_wait_for_the_model_do_not_count_in_the_rate() -> None:
    assert rate_of([COLD, WARM], recent=0) == pytest.approx(115)


def test_a_sample_too_small_to_warm_up_has_the_rate_that_it_had() -> None:
    assert rate_of([COLD], recent=0) == pytest.approx(2.5)


def test_failed_pictures_count_because_those_of_the_job_fail_as_fast() -> None:
    some = replace(WARM, counts=Counts(46, 0, 36, 10, 0), status=JobStatus.PARTIALLY_SUCCEEDED)
    assert rate_of([COLD, some], recent=0) == pytest.approx(115)


def test_the_rate_of_the_last_minute_counts_if_it_is_higher() -> None:
    assert rate_of([COLD, WARM], recent=300) == 300
    assert rate_of([COLD, WARM], recent=20) == pytest.approx(115)


def test_without_a_finished_sample_only_the_last_minute_counts() -> None:
    unfinished = tried(JobStatus.RUNNING, finished=12, took_ms=0)
    assert rate_of([COLD, unfinished], recent=7) == 7
    assert rate_of([unfinished], recent=0) == 0
    assert rate_of([], recent=7) == 7
