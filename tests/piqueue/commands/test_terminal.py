"""What the commands say of a job."""

from typing import Any

import msgspec

from api.openapi.literals import JOB
from piqueue import Job
from piqueue.commands.terminal import hosts

OTHERS: dict[str, Any] = {
    **{"host": None, "ok": 5, "http_status": {}},
    **{"timeouts": 2, "other": 1, "p95_ms": None},
}


def test_the_hosts_of_a_job_are_shown_as_a_table() -> None:
    job = msgspec.convert({**JOB, "hosts": [*JOB["hosts"], OTHERS]}, Job)
    assert hosts(job) == [
        "  host             fetched  timeouts  other  p95 ms  answered",
        "  old.example.com  31       0         0      640     404: 9",
        "  example.com      224      0         0      120",
        "  all others       5        2         1",
    ]


def test_a_job_without_urls_shows_no_hosts() -> None:
    assert hosts(msgspec.convert({**JOB, "hosts": []}, Job)) == []
