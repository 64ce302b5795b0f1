"""What the commands share: how to reach the API, what to say when it fails, exit codes."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

from api.schemas import JobOut
from piqueue.client import Client, PiqueueApiError, ResultsFormat
from piqueue.commands.progress import tell
from piqueue.commands.sources import SourceUnfit
from worker.jobs.errors import PiqueueError

# The API names its query parameter, where a person needs the option.
_QUERY_COLUMN = re.compile(r"\?(url|id)_column=")
_FORMATS: dict[str, ResultsFormat] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


class ExitCode(IntEnum):
    """How a command ended."""

    ALL_SUCCEEDED = 0
    NOTHING_SUCCEEDED = 1
    SOME_FAILED = 2
    INTERRUPTED = 130


class CommandFailed(Exception):
    """A command cannot go on; the text says why."""


def connection_options() -> argparse.ArgumentParser:
    """Options of every command that calls the API."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("the API")
    group.add_argument("--url", help="its address; else $PIQUEUE_URL, else http://127.0.0.1:8000")
    group.add_argument("--api-key", metavar="KEY", help="better given as $PIQUEUE_API_KEY")
    return parser


def connect(options: argparse.Namespace, patience_s: float = 10) -> Client:
    """A client that says when it waits for the API."""

    said: set[str] = set()

    def waiting(error: PiqueueApiError, _pause_s: float) -> None:
        if error.detail not in said:
            said.add(error.detail)
            tell(f"waiting for the API: {error.detail}")

    return Client(options.url, options.api_key, patience_s=patience_s, on_retry=waiting)


def run(program: str, command: Callable[[], int]) -> int:
    """Run a command; what is expected to go wrong becomes a sentence and exit code 1."""
    try:
        return command()
    except PiqueueApiError as error:
        detail = _QUERY_COLUMN.sub(r"--\1-column", error.detail)
        tell(f"{program}: {detail}")
        for row in error.problems:
            tell(refusal(row.get("index"), row.get("id"), row["detail"]))
        if (unlisted := error.problem_count - len(error.problems)) > 0:
            tell(f"  and {unlisted} more")
    except BrokenPipeError:  # who read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CommandFailed, SourceUnfit, PiqueueError, OSError) as error:
        tell(f"{program}: {error}")
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return ExitCode.NOTHING_SUCCEEDED


def refusal(index: int | None, item_id: str | None, detail: str) -> str:
    """One line about an item that was refused."""
    where = [] if index is None else [f"item {index}"]
    if item_id and item_id != str(index):
        where.append(item_id)
    return f"  {', '.join(where)}: {detail}"


def summary(job: JobOut) -> str:
    """One line about where a job stands."""
    counts = job.counts
    parts = [f"{counts.succeeded} of {counts.total} succeeded"]
    if counts.failed:
        reasons = ", ".join(f"{code} {count}" for code, count in job.failures.items())
        parts.append(f"{counts.failed} failed ({reasons})")
    if counts.cancelled:
        parts.append(f"{counts.cancelled} cancelled")
    if not job.done and job.eta_s is not None:
        parts.append(f"{job.rate_per_s}/s, about {job.eta_s} s left")
    if job.error:
        parts.append(job.error)
    return f"{job.id} {job.status}: {'; '.join(parts)}"


def hosts(job: JobOut) -> list[str]:
    """Lines about the hosts of a job's URLs, as a table; none where it has no URLs."""
    if not job.hosts:
        return []
    rows: list[tuple[str, ...]] = [("host", "fetched", "timeouts", "other", "p95 ms", "answered")]
    for host in job.hosts:
        statuses = ", ".join(f"{status}: {count}" for status, count in host.http_status.items())
        counts = (host.ok, host.timeouts, host.other, "" if host.p95_ms is None else host.p95_ms)
        rows.append((host.host or "all others", *map(str, counts), statuses))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return ["  ".join(("", *row)).rstrip() for row in cells]


def results_format(output: Path | None, named: ResultsFormat | None = None) -> ResultsFormat:
    """The format that is named, or that the suffix of `output` means, or CSV.

    Raises:
        CommandFailed: the suffix means none.
    """
    if named:
        return named
    if output is None:
        return "csv"
    try:
        return _FORMATS[output.suffix.lower()]
    except KeyError:
        raise CommandFailed(f"{output}: results are written as {', '.join(_FORMATS)}") from None


def check_folder(output: Path) -> None:
    """Refuse a file whose folder is not there, before any work is done for it.

    Raises:
        CommandFailed: it is not.
    """
    if not output.parent.is_dir():
        raise CommandFailed(f"{output}: there is no folder {output.parent}")


@contextmanager
def written_whole(output: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `output` once the block ends, and never if it fails."""
    part = output.with_name(f".{output.name}.part")
    try:
        with part.open("w+b") as file:
            yield file
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
