"""What the commands share: the options of the connection, error messages, exit codes."""

import argparse
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from piqueue.client import Client
from piqueue.commands.progress import set_quiet, tell
from piqueue.errors import PiqueueApiError
from piqueue.types import Job, Result

# Errors name query parameters, a header and a variable; the command line has options for them.
_QUERY_COLUMN = re.compile(r"\?(url|id)_column=")
_BY_VARIABLE = "set PIQUEUE_URL to its address"
_BY_HEADER = "send the header Authorization: Bearer pq_…"
# How long a command that waits for work retries; the others give up sooner.
PATIENCE_S = 600
# Options are short: with less in common, nearly every word resembles --help.
_ALIKE = 0.75


class Parser(argparse.ArgumentParser):
    """A parser whose exit code for wrong options does not mean anything else."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = [*map(str, action.choices or ())]
        if choices and str(value) not in choices:
            near = get_close_matches(str(value), choices, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"there is no {value!r}: {hint}")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See `ArgumentParser.parse_known_args`; says which option an unknown one resembles."""
        parsed, unknown = super().parse_known_args(args, namespace)
        return parsed, [self._resembling(one) for one in unknown]

    def _resembling(self, unknown: str) -> str:
        name, *hint = unknown.partition("=")[0].split(" ")  # a parser of a command has added one
        near = [] if hint else get_close_matches(name, self._option_string_actions, 1, _ALIKE)
        is_option = name.startswith("--") and near
        return f"{unknown} (did you mean {near[0]}?)" if is_option else unknown

    def error(self, message: str) -> NoReturn:
        """See `ArgumentParser.error`."""
        self.print_usage(sys.stderr)
        self.exit(ExitCode.WRONG_OPTIONS, f"{self.prog}: error: {message}\n")


class ExitCode(IntEnum):
    """The exit code of a command."""

    ALL_SUCCEEDED = 0
    NOTHING_SUCCEEDED = 1
    SOME_FAILED = 2
    WRONG_OPTIONS = 64
    INTERRUPTED = 130


class CommandFailed(Exception):
    """A command cannot continue; the text says why."""


def connection_options() -> Parser:
    """Options of every command that calls the API."""
    parser = Parser(add_help=False)
    group = parser.add_argument_group("the API")
    group.add_argument("--url", help="address (default: $PIQUEUE_URL or http://127.0.0.1:8000)")
    group.add_argument("--api-key", metavar="KEY", help="default: $PIQUEUE_API_KEY, which is safer")
    quiet = "show no progress and no hints, and print only ids or the status"
    parser.add_argument("-q", "--quiet", action="store_true", help=quiet)
    return parser


def connect(options: argparse.Namespace, patience_s: float = 10) -> Client:
    """A client that tells once for each reason that it waits for the API; applies `--quiet`."""
    set_quiet(options.quiet)
    told: set[str] = set()

    def waiting(error: PiqueueApiError, _pause_s: float) -> None:
        reason = f"waiting for the API: {_with_options(error.detail)}"
        if error.code == "not_compared":
            reason = "comparing the pictures of the job: this can take some minutes"
        if reason not in told:
            told.add(reason)
            tell(reason)

    return Client(options.url, options.api_key, patience_s=patience_s, on_retry=waiting)


def run(program: str, command: Callable[[], int]) -> int:
    """Run a command; an expected error becomes a message and exit code 1."""
    try:
        return command()
    except PiqueueApiError as error:
        tell(f"{program}: {_with_options(error.detail)}")
        for row in error.problems:
            tell(refusal(row.get("index"), row.get("id"), row["detail"]))
        if (unlisted := error.problem_count - len(error.problems)) > 0:
            tell(f"  and {unlisted} more")
    except BrokenPipeError:  # whoever reads our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CommandFailed, OSError) as error:
        tell(f"{program}: {error}")
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return ExitCode.NOTHING_SUCCEEDED


def _with_options(detail: str) -> str:
    """The text of an error of the API or the client, with the options of the command line."""
    detail = _QUERY_COLUMN.sub(r"--\1-column", detail)
    detail = detail.replace(_BY_VARIABLE, "give its address with --url or PIQUEUE_URL")
    return detail.replace(_BY_HEADER, "set PIQUEUE_API_KEY to yours, or give --api-key")


def refusal(index: int | None, item_id: str | None, detail: str) -> str:
    """One line about a refused item."""
    where = [] if index is None else [f"item {index}"]
    if item_id and item_id != str(index):
        where.append(item_id)
    return f"  {', '.join(where)}: {detail}"


def summary(job: Job) -> str:
    """One line about the state of a job."""
    counts = job.counts
    parts = [f"{counts.succeeded} of {counts.total} succeeded"]
    if counts.failed:
        reasons = ", ".join(f"{code} {count}" for code, count in job.failures.items())
        parts.append(f"{counts.failed} failed ({reasons})")
    if counts.cancelled:
        parts.append(f"{counts.cancelled} cancelled")
    if not job.done and job.eta_s is not None:
        parts.append(f"{job.rate_per_s}/s, about {job.eta_s} s left")
    if job.position is not None:
        soon = "" if job.starts_in_s is None else f", starts in about {job.starts_in_s} s"
        parts.append(f"number {job.position} in the queue{soon}")
    if job.error:
        parts.append(job.error)
    return f"{job.id} {job.status}: {'; '.join(parts)}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text as lines whose columns are aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in padded]


def scores(result: Result) -> str:
    """One line about a picture: its best scores, or why it has none."""
    if result.scores is None:
        reason = f"{result.error.code}: {result.error.detail}" if result.error else result.status
        return f"  {result.id}  {reason}"
    best = sorted(result.scores.items(), key=lambda one: -one[1])[:3]
    return "  ".join(["", result.id, *(f"{label} {score:.2f}" for label, score in best)])


def hosts(job: Job) -> list[str]:
    """A table of the hosts of a job, one line each; empty for a job without URLs."""
    if not job.hosts:
        return []
    rows: list[tuple[str, ...]] = [("host", "fetched", "timeouts", "other", "p95 ms", "answered")]
    for host in job.hosts:
        statuses = ", ".join(f"{status}: {count}" for status, count in host.http_status.items())
        counts = (host.ok, host.timeouts, host.other, "" if host.p95_ms is None else host.p95_ms)
        rows.append((host.host or "all others", *map(str, counts), statuses))
    return [f"  {line}" for line in table(rows)]


def check_folder(output: Path) -> None:
    """Check that a file can be written, before the work for it begins.

    Raises:
        CommandFailed: its folder does not exist, or cannot be written to.
    """
    if not output.parent.is_dir():
        raise CommandFailed(f"{output}: there is no folder {output.parent}: create it")
    if not os.access(output.parent, os.W_OK):
        raise CommandFailed(f"{output}: nothing can be written to {output.parent}: name another")


@contextmanager
def written_whole(output: Path) -> Iterator[BinaryIO]:
    """Open a file whose content replaces that of `output` when the block succeeds.

    A file that is replaced keeps its owner and permissions; if `output` is a link, so is the file
    that it leads to. A pipe or a device is written when the block succeeds.
    """
    if output.exists() and not output.is_file():
        with output.open("wb") as target, tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            shutil.copyfileobj(file, target)
        return
    path = Path(os.path.realpath(output))
    # The beginning of the name only, which may be as long as a name can be.
    part = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("x+b") as file:
            if path.exists():
                with suppress(PermissionError, AttributeError):  # Windows has no owners
                    os.chown(part, path.stat().st_uid, path.stat().st_gid)
                shutil.copymode(path, part)
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
