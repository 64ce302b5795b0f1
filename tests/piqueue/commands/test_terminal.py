"""What the commands say of a job, and how they write files."""

import os
import stat
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest

from api.openapi.literals import JOB
from piqueue import Job
from piqueue.commands.terminal import hosts, written_whole

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


def test_a_file_is_replaced_where_a_link_leads_and_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file, link = tmp_path / "real" / "labels.csv", tmp_path / "labels.csv"
    file.write_text("before")
    file.chmod(0o660)
    link.symlink_to(file)
    with written_whole(link) as target:
        target.write(b"after")
        assert file.read_text() == "before"
    assert link.is_symlink()
    assert file.read_text() == "after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o660
    assert [one.name for one in file.parent.iterdir()] == ["labels.csv"]


def test_a_pipe_is_written_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "results.csv"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    with written_whole(pipe) as target:
        target.write(b"lost")
        target.seek(0)
        target.truncate()
        target.write(b"results")
    reader.join(60)
    assert received == [b"results"]
    assert pipe.is_fifo()


def test_two_that_write_the_same_file_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / f"{'n' * 251}.csv"
    with written_whole(file) as first:
        first.write(b"first")
        with written_whole(file) as second:
            second.write(b"the second")
        assert file.read_bytes() == b"the second"
    assert file.read_bytes() == b"first"


def test_a_file_whose_replacement_fails_stays(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("before")

    def fill() -> None:
        with written_whole(file) as target:
            target.write(b"a part")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
