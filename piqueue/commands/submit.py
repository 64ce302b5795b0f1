"""Submits pictures in bulk, follows their job and writes the results."""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from api.schemas import JobOptions, JobOut
from piqueue.client import Body, Client, PiqueueApiError
from piqueue.commands.progress import Progress, tell
from piqueue.commands.s3_listing import list_pictures
from piqueue.commands.sources import (
    Lines,
    Pictures,
    S3Folder,
    Source,
    SourceUnfit,
    Table,
    find_source,
)
from piqueue.commands.terminal import (
    CommandFailed,
    ExitCode,
    check_folder,
    connect,
    connection_options,
    refusal,
    results_format,
    run,
    summary,
    written_whole,
)
from piqueue.commands.uploads import Refused, upload
from worker.jobs.errors import LISTED_PROBLEMS, describe
from worker.jobs.record import JobStatus, Lane

PATIENCE_S = 600

EXAMPLES = """\
examples:
  piqueue submit photos.csv -o results.csv             a column url, the others come back
  piqueue submit export.csv.gz --encoding latin-1 --sep ';' --url-column image --id-column sku
  piqueue submit holiday/ -o results.parquet           every picture in a folder and below it
  piqueue submit a.jpg b.jpg                           some files
  piqueue submit s3://bucket/holiday -o results.csv    every picture below that prefix
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
        "s3://bucket/prefix, or any number of pictures and folders",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write results here: .csv, .jsonl or .parquet",
    )
    parser.add_argument(
        "--resume",
        metavar="JOB",
        help="go on with a job; name the folder again if its upload was not complete",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check a table or list and try some of its URLs"
    )
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and leave")
    table = parser.add_argument_group("tables")
    table.add_argument("--url-column", default="url", metavar="NAME", help="(%(default)s)")
    table.add_argument("--id-column", metavar="NAME", help="else the row's number is the id")
    table.add_argument("--encoding", default="utf-8", help="of a table or a list (%(default)s)")
    table.add_argument("--sep", metavar="CHARACTER", help="else a comma, or a tab for .tsv")
    job = parser.add_argument_group("the job")
    job.add_argument("--model", metavar="NAME[@VERSION]")
    job.add_argument("--name", help="to know it by")
    job.add_argument("--priority", choices=[lane.value for lane in Lane], help="else by size")
    job.add_argument(
        "--max-failures",
        metavar="COUNT|PERCENT",
        help="give the job up beyond these, as 100 or 5%%",
    )
    job.add_argument("--expires-in", dest="expires_in_s", metavar="SECONDS", help="then it is gone")
    job.add_argument("--webhook-url", metavar="URL", help="told when the job is done")
    job.add_argument(
        "--use-cache",
        action="store_true",
        default=None,
        help="take and keep scores of pictures seen before",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m piqueue.commands.submit`; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m piqueue.commands.submit",
        description=__doc__,
        parents=[connection_options()],
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    return run(options.program, lambda: submit(options))


def submit(options: argparse.Namespace) -> int:
    """Submit, follow, write; gives the exit code.

    Raises:
        CommandFailed: the options contradict each other or the job.
        SourceUnfit: there is nothing that could be submitted.
        PiqueueApiError: the job was refused, or the API stays away.
    """
    if not options.sources and not options.resume:
        raise CommandFailed("name what to submit, or give --resume JOB")
    if options.output:
        results_format(options.output)
        check_folder(options.output)
    source = None
    if options.sources:
        source = find_source(options.sources, options.encoding, options.sep)
    with connect(options, PATIENCE_S) as client:
        if options.dry_run:
            return _dry_run(client, options, source)
        submission = _Submission(client, options, source)
        try:
            return submission.run()
        except KeyboardInterrupt:
            tell(f"\n{submission.where_it_stands()}")
            return ExitCode.INTERRUPTED
        except (PiqueueApiError, OSError):
            if submission.job is not None:
                tell(submission.where_it_stands())
            raise


class _Submission:
    """One run of the command; `job` is None until there is one."""

    def __init__(self, client: Client, options: argparse.Namespace, source: Source | None) -> None:
        self.job: JobOut | None = None
        self._client = client
        self._options = options
        self._source = source

    def run(self) -> int:
        """Do all of it; gives the exit code."""
        options = self._options
        self.job = self._client.job(options.resume) if options.resume else self._begin()
        refused: list[Refused] = []
        if self.job.status is JobStatus.DRAFT:
            refused = self._fill(self.job)
            self.job = self._client.submit_draft(self.job.id)
        if options.no_wait:
            print(self.job.id)
            return ExitCode.SOME_FAILED if refused else ExitCode.ALL_SUCCEEDED
        self.job = self._follow(self.job)
        if options.output:
            with written_whole(options.output) as file:
                self._client.download(self.job.id, file, results_format(options.output))
        print(summary(self.job))
        if not options.output:
            tell(f"to have the results: piqueue results {self.job.id} -o results.csv")
        return _exit_code(self.job, refused)

    def where_it_stands(self) -> str:
        """Say what became of the job, and how to go on."""
        if self.job is None:
            return "nothing was submitted, unless the last byte had gone out: see piqueue jobs"
        options = self._options
        command = [*options.program.split(), "--resume", self.job.id]
        stands = "is done" if self.job.done else "goes on"
        if self.job.status is JobStatus.DRAFT:
            stands = "is not uploaded yet"
            command += options.sources
        if options.output:
            command += ["-o", str(options.output)]
        if options.url:
            command += ["--url", options.url]
        return f"{self.job.id} {stands}; to see it through: {shlex.join(command)}"

    def _begin(self) -> JobOut:
        options = _job_options(self._options)
        match self._source:
            case Table(rows):
                return self._client.submit_csv(rows, options, **_columns(self._options))
            case Lines(items):
                return self._client.submit_ndjson(items, options)
            case S3Folder() as folder:
                with _listed(self._client, folder) as items:
                    return self._client.submit_ndjson(items, options)
            case _:
                return self._client.open_draft(options)

    def _fill(self, draft: JobOut) -> list[Refused]:
        """Send the files that a draft does not have yet; gives those that were refused."""
        if not isinstance(self._source, Pictures):
            raise CommandFailed(
                f"{draft.id} is a draft, whose upload is not complete: name its pictures again"
            )
        files = self._source.files
        there = set(self._client.draft_ids(draft.id)) if draft.counts.total else set()
        missing = {item_id: path for item_id, path in files.items() if item_id not in there}
        done = len(files) - len(missing)
        with Progress("uploaded", len(files), done) as progress:

            def sent(count: int) -> None:
                nonlocal done
                done += count
                progress.show(done)

            refused = upload(self._client, draft.id, missing, sent)
        if refused:
            tell(f"{len(refused)} of {len(files)} files were refused and are not part of the job:")
            for one in refused[:LISTED_PROBLEMS]:
                tell(refusal(None, one.id, one.detail))
            if len(refused) > LISTED_PROBLEMS:
                tell(f"  and {len(refused) - LISTED_PROBLEMS} more")
        if len(refused) == len(files):
            self._client.delete(draft.id)
            self.job = None
            raise CommandFailed("there is nothing left to submit")
        return refused

    def _follow(self, job: JobOut) -> JobOut:
        tell(f"{job.id}: {job.counts.total} pictures")
        with Progress("scored", job.counts.total, _over(job)) as progress:
            for latest in self._client.follow(job.id):
                progress.show(_over(latest))
        return latest


def _dry_run(client: Client, options: argparse.Namespace, source: Source | None) -> int:
    """Show what a submission would come to; the exit code is that of the URLs that were tried."""
    match source:
        case Table(rows):
            tried = client.dry_run_csv(rows, _job_options(options), **_columns(options))
        case Lines(items):
            tried = client.dry_run_ndjson(items, _job_options(options))
        case S3Folder() as folder:
            with _listed(client, folder) as items:
                tried = client.dry_run_ndjson(items, _job_options(options))
        case _:
            raise CommandFailed("a dry run tries the URLs of a table, a list or an S3 folder")
    print(f"{tried.items} pictures for {tried.model.name}@{tried.model.version}")
    if tried.eta_s is not None:
        print(f"would take about {tried.eta_s} s")
    failed_count = 0
    for host in tried.hosts:
        failed_count += sum(host.failures.values())
        codes = ", ".join(f"{code} {count}" for code, count in host.failures.items())
        print(f"{host.host}: {host.sampled} tried, {codes or 'all good'}")
    if not failed_count:
        return ExitCode.ALL_SUCCEEDED
    return ExitCode.SOME_FAILED if failed_count < tried.sampled else ExitCode.NOTHING_SUCCEEDED


@contextmanager
def _listed(client: Client, folder: S3Folder) -> Iterator[Body]:
    """List the pictures of a folder in S3, once it is sure that the service takes them from there.

    Raises:
        SourceUnfit: it does not, or there are none.
    """
    if folder.bucket not in client.limits().s3_fetch_buckets:
        raise SourceUnfit(
            f"{folder}: this Piqueue takes no pictures from the bucket {folder.bucket}: "
            "whoever runs it can add it to PIQUEUE_S3_FETCH_BUCKETS"
        )
    with list_pictures(folder) as listed:
        others = f", and {listed.other_count} other objects left out" if listed.other_count else ""
        tell(f"{folder}: {listed.picture_count} pictures{others}")
        yield listed.items


def _columns(options: argparse.Namespace) -> dict[str, str]:
    return {"url_column": options.url_column, "id_column": options.id_column}


def _job_options(options: argparse.Namespace) -> JobOptions:
    names = (
        "model",
        "name",
        "priority",
        "max_failures",
        "expires_in_s",
        "webhook_url",
        "use_cache",
    )
    given = {name: getattr(options, name) for name in names}
    try:
        return JobOptions.model_validate(
            {name: value for name, value in given.items() if value is not None}
        )
    except ValidationError as error:
        raise CommandFailed(describe(error.errors())) from None


def _over(job: JobOut) -> int:
    """Items that wait and run no more."""
    return job.counts.total - job.counts.waiting - job.counts.running


def _exit_code(job: JobOut, refused: Sequence[Refused]) -> ExitCode:
    if not job.counts.succeeded:
        return ExitCode.NOTHING_SUCCEEDED
    complete = job.counts.succeeded == job.counts.total and not refused
    return ExitCode.ALL_SUCCEEDED if complete else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(main())
