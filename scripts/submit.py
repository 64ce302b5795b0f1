"""Submits pictures in bulk, follows their job and writes the results."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from api.schemas import JobOptions, JobOut
from scripts.client import Client, PiqueueApiError
from scripts.progress import Progress, tell
from scripts.sources import Lines, Pictures, Source, Table, find_source
from scripts.terminal import (
    CommandFailed,
    ExitCode,
    connect,
    connection_options,
    refusal,
    results_format,
    run,
    summary,
    written_whole,
)
from scripts.uploads import Refused, upload
from worker.jobs.errors import LISTED_PROBLEMS, describe
from worker.jobs.record import JobStatus, Lane

PATIENCE_S = 600

EXAMPLES = """\
examples:
  piqueue submit photos.csv -o results.csv             a column url, the others come back
  piqueue submit export.csv.gz --encoding latin-1 --sep ';' --url-column image --id-column sku
  piqueue submit holiday/ -o results.parquet           every picture in a folder and below it
  piqueue submit a.jpg b.jpg                           some files
  piqueue submit - < urls.txt                          one URL a line; also: submit urls.txt
  piqueue submit items.ndjson --no-wait                one {"url": …, "id": …} a line
  piqueue submit --resume job_01J… -o results.csv      go on after Ctrl-C

Ctrl-C leaves the job running. Exit code: 0 all pictures succeeded, 2 some failed, 1 none did or
the job was refused."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the arguments of `submit`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.set_defaults(program=parser.prog, command=submit)
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="a .csv, .tsv, .ndjson, .jsonl or .txt file, - for URLs on standard input, "
        "or any number of pictures and folders",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write results here: "
                        ".csv, .jsonl or .parquet")
    parser.add_argument("--resume", metavar="JOB", help="go on with a job; name the folder again "
                        "if its upload was not complete")
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and leave")
    table = parser.add_argument_group("tables")
    table.add_argument("--url-column", default="url", metavar="NAME", help="(%(default)s)")
    table.add_argument("--id-column", metavar="NAME", help="else the row's number is the id")
    table.add_argument("--encoding", default="utf-8", help="of a table or a list (%(default)s)")
    table.add_argument("--sep", metavar="CHARACTER", help="else a comma, or a tab for .tsv")
    job = parser.add_argument_group("the job")
    job.add_argument("--model", metavar="NAME[@VERSION]")
    job.add_argument("--name", help="to know it by")
    job.add_argument("--priority", choices=list(Lane), help="else by size")
    job.add_argument(
        "--max-failures", metavar="COUNT|PERCENT", help="give the job up beyond these, as 100 or 5%%"
    )
    job.add_argument("--expires-in", dest="expires_in_s", metavar="SECONDS", help="then it is gone")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m scripts.submit`; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.submit", description=__doc__, parents=[connection_options()]
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    return run(options.program, lambda: submit(options))


def submit(options: argparse.Namespace) -> int:
    """Submit, follow, write; gives the exit code."""
    if not options.sources and not options.resume:
        raise CommandFailed("name what to submit, or give --resume JOB")
    if options.output:
        results_format(options.output)
        if not options.output.parent.is_dir():
            raise CommandFailed(f"{options.output}: there is no folder {options.output.parent}")
    source = None
    if options.sources:
        source = find_source(options.sources, options.encoding, options.sep)
    job = None
    refused: list[Refused] = []
    with connect(options, PATIENCE_S) as client:
        try:
            job = client.job(options.resume) if options.resume else _begin(client, source, options)
            if job.status is JobStatus.DRAFT:
                refused = _fill(client, job, source)
                job = client.submit_draft(job.id)
            if not options.no_wait:
                job = _follow(client, job)
                if options.output:
                    with written_whole(options.output) as file:
                        client.download(job.id, file, results_format(options.output))
        except (KeyboardInterrupt, PiqueueApiError, OSError) as error:
            if job is None or not isinstance(error, KeyboardInterrupt):
                
                raise
            return ExitCode.INTERRUPTED
    _tell_refused(refused)
    if options.no_wait:
        print(job.id)
        return ExitCode.SOME_FAILED if refused else ExitCode.ALL_SUCCEEDED
    print(summary(job))
    return _exit_code(job, refused)
