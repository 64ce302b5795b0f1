"""Writes the results of a job."""

import argparse
import shutil
import sys
import tempfile
from codecs import BOM_UTF8
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, Literal, Unpack, get_args

from piqueue.client import Client
from piqueue.commands.progress import tell
from piqueue.commands.terminal import CommandFailed, check_folder, connect, written_whole
from piqueue.commands.workbook import check_library, write_workbook
from piqueue.types import Filters, ItemStatus, Job, ResultsFormat

FileFormat = Literal[ResultsFormat, "xlsx"]
_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
MERGE = "if JOB is a retry, add the results of the jobs that it retried"
BOM = "begin a CSV file with a byte order mark, so that Excel reads it as UTF-8"
EXAMPLES = """\
examples:
  piqueue results job_01J… -o results.xlsx
  piqueue results job_01J… -o results.parquet
  piqueue results job_01J… --status failed --format jsonl
  piqueue results job_01J… --label beach --threshold 0.9 > beaches.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `results`."""
    add = parser.add_argument
    add("job")
    add("-o", "--output", type=Path, metavar="FILE", help="default: standard output")
    formats = get_args(FileFormat)
    add("--format", choices=formats, help="default: by the suffix of FILE, or csv")
    add("--bom", action="store_true", help=BOM)
    add = parser.add_argument_group("which pictures").add_argument
    add("--status", choices=get_args(ItemStatus))
    add("--label", help="only pictures with this label")
    named = "only pictures whose id, URL or file name contains TEXT"
    add("--search", metavar="TEXT", help=named)
    add("--error", metavar="CODE", help="only pictures that failed with this code")
    for name, side in (("--above", "at least"), ("--below", "lower than")):
        bound = f"only pictures whose score of LABEL is {side} SCORE; repeat it to combine"
        add(name, action="append", metavar="LABEL:SCORE", help=bound)
    add("--merge", action="store_const", const="parents", help=MERGE)
    add = parser.add_argument_group("what of each picture").add_argument
    add("--top-k", type=int, metavar="K", help="only the K best scores of a picture")
    include = "add the score of LABEL if --top-k leaves it out; for jsonl only"
    add("--include", action="append", metavar="LABEL", help=include)
    threshold = "score from which a label is predicted (default: as the model sets it)"
    add("--threshold", type=float, metavar="SCORE", help=threshold)
    embeddings = "add the kept features of each picture; for parquet only"
    add("--embeddings", action="store_const", const=True, help=embeddings)


def results(options: argparse.Namespace) -> int:
    """Write the results of a job to a file or to standard output; gives the exit code."""
    form = results_format(options.output, options.format)
    check_bom(options, form)
    if options.output:
        check_folder(options.output)
    filters: Filters = {}
    for name in Filters.__optional_keys__:
        if (value := getattr(options, name)) is not None:
            filters[name] = value  # type: ignore[literal-required]
    with connect(options) as client, ExitStack() as files:
        job = client.job(options.job)  # before the download, which may be complete a moment later
        if options.output:
            target = files.enter_context(written_whole(options.output))
        else:
            # Through a file, because a download may start again when the connection breaks.
            target = files.enter_context(tempfile.TemporaryFile())
        write_results(client, job.id, target, form, bom=options.bom, **filters)
        if not options.output:
            target.seek(0)
            shutil.copyfileobj(target, sys.stdout.buffer)
    if missing := _missing(job):
        tell(missing)
    return 0


def _missing(job: Job) -> str | None:
    """Say that pictures of a job have no result, and what to do, or None if all have one."""
    counts = job.counts
    if not job.done:
        return (
            f"{job.id} is {job.status}: {counts.succeeded + counts.failed:,} of {counts.total:,} "
            f"pictures have a result. `piqueue submit --resume {job.id}` waits for the rest: then "
            "write the results again"
        )
    if counts.cancelled:
        reason = f" ({job.error})" if job.error else ""
        return (
            f"{job.id} {job.status}{reason}: {counts.cancelled:,} of {counts.total:,} pictures "
            "were cancelled and have no result. To score them, submit them again"
        )
    return None


def check_bom(options: argparse.Namespace, form: FileFormat | None) -> None:
    """Raise CommandFailed if --bom is given, and no CSV file is written."""
    if options.bom and form != "csv":
        are = f"the results are {form}" if form else "there is no -o FILE"
        raise CommandFailed(f"--bom is for CSV, and {are}: leave it out")


def write_results(
    client: Client,
    job_id: str,
    target: BinaryIO,
    form: FileFormat,
    *,
    bom: bool = False,
    **filters: Unpack[Filters],
) -> None:
    """Write results to `target`, a file that can seek; `bom` is for CSV only."""
    if form != "xlsx" and not bom:
        client.download(job_id, target, form, **filters)
        return
    with tempfile.TemporaryFile() as received:
        client.download(job_id, received, "csv", **filters)
        received.seek(0)
        if form == "xlsx":
            with TextIOWrapper(received, "utf-8", newline="") as table:
                write_workbook(table, target)
        else:
            target.write(BOM_UTF8)
            shutil.copyfileobj(received, target)


def results_format(output: Path | None, named: FileFormat | None = None) -> FileFormat:
    """The format `named`, else that of the suffix of `output`, else CSV.

    Raises:
        CommandFailed: the suffix is not that of a format, or a library for it is missing.
    """
    form = named or ("csv" if output is None else _SUFFIXES.get(output.suffix.lower()))
    if form is None:
        raise CommandFailed(f"{output}: name a file that ends in {', '.join(_SUFFIXES)}")
    if form == "xlsx":
        check_library()
    return form
