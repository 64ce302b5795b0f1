"""Submits pictures, follows their job and writes the results."""

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from piqueue.client import Client
from piqueue.commands.durations import duration_or_seconds
from piqueue.commands.pictures import listed
from piqueue.commands.progress import Progress, note, tell
from piqueue.commands.results import BOM, check_bom, results_format, write_results
from piqueue.commands.s3_listing import Listed, list_pictures
from piqueue.commands.sources import (
    Lines,
    Pictures,
    S3Folder,
    Source,
    Table,
    find_source,
    is_same,
)
from piqueue.commands.tables import Form
from piqueue.commands.terminal import (
    PATIENCE_S,
    CommandFailed,
    ExitCode,
    check_folder,
    connect,
    scores,
    summary,
    written_whole,
)
from piqueue.commands.uploads import size_of, upload
from piqueue.errors import PiqueueApiError
from piqueue.types import Columns, Job, JobOptions, Priority, SampledHost

# The scores of so few pictures are printed.
MOST_SHOWN = 20

EXAMPLES = """\
examples:
  piqueue submit photos.csv -o results.csv             the column url; results repeat the others
  piqueue submit export.csv.gz --encoding latin-1 --sep ';' --url-column image --id-column sku
  piqueue submit holiday/ -o results.parquet           all pictures in a folder and its subfolders
  piqueue submit a.jpg b.jpg                           some files
  piqueue submit s3://bucket/holiday -o results.csv    all pictures below a prefix
  piqueue submit - < urls.txt                          one URL per line; also: submit urls.txt
  piqueue submit items.ndjson --no-wait                one {"url": …, "id": …} per line
  piqueue submit --resume job_01J… -o results.csv      continue after Ctrl-C

After Ctrl-C the job continues. Exit code: 0 if all pictures succeeded, 2 if some failed or a file
of a folder is not part of the job, 1 if none succeeded or the job was refused."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `submit`."""
    add = parser.add_argument
    add(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="a .csv, .tsv, .xlsx, .ndjson, .jsonl or .txt file, - for URLs on standard input, "
        "s3://bucket/prefix, or any number of pictures and folders",
    )
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="results as .csv, .jsonl, .parquet or .xlsx",
    )
    add("--bom", action="store_true", help=BOM)
    overwrite = "let -o replace the table that is submitted"
    add("--overwrite-input", action="store_true", help=overwrite)
    resume = "continue with a job; if its upload was interrupted, name SOURCE again"
    add("--resume", metavar="JOB", help=resume)
    add("--dry-run", action="store_true", help="check a table or list and fetch some of its URLs")
    add("--no-wait", action="store_true", help="print the id of the job and exit")
    add = parser.add_argument_group("tables").add_argument
    add("--url-column", default="url", metavar="NAME", help="column of URLs (default: %(default)s)")
    add("--id-column", metavar="NAME", help="column of ids (default: the index of the row)")
    encoding = "encoding of a table or list (default: UTF-8, or what its byte order mark says)"
    add("--encoding", help=encoding)
    add("--sep", metavar="CHARACTER", help="separator (default: a comma, or a tab for .tsv)")
    quotes = "quotation marks are ordinary characters, as databases write tab-separated tables"
    add("--no-quotes", action="store_true", help=quotes)
    add = parser.add_argument_group("the job").add_argument
    models = "repeat it to score with several models at once"
    add("--model", action="append", dest="models", metavar="NAME[@VERSION]", help=models)
    add("--name", help="name of the job, for people")
    add("--priority", choices=get_args(Priority), help="default: by the size of the job")
    most = "stop the job if more pictures fail, such as 100 or 5%%"
    add("--max-failures", metavar="COUNT|PERCENT", help=most)
    expiry = "time after which the job and its results are deleted: seconds, or such as 12h or 2d"
    given = add("--expires-in", dest="expires_in_s", type=duration_or_seconds, help=expiry)
    given.metavar = "TIME"
    add("--webhook-url", metavar="URL", help="address that Piqueue notifies when the job ends")
    cache = "reuse the scores of pictures that were scored before, and store new ones"
    add("--use-cache", action="store_true", default=None, help=cache)
    thumbnails = "keep a small version of each picture, for the page and the report"
    add("--thumbnails", action="store_true", default=None, help=thumbnails)
    features = "keep the features of each picture, for piqueue teach, rescore and similar"
    add("--keep-features", action="store_true", default=None, help=features)


def submit(options: argparse.Namespace) -> int:
    """Submit pictures, follow the job, write the results; gives the exit code.

    Raises:
        CommandFailed: the options contradict each other, or there is nothing to submit.
        PiqueueApiError: the job is refused, or the API does not answer.
    """
    if not options.sources and not options.resume:
        raise CommandFailed("name what to submit, or give --resume JOB")
    if options.output and (options.no_wait or options.dry_run):
        raise CommandFailed(
            f"-o {options.output}: there are no results with --no-wait or --dry-run: leave out one "
            "of the options"
        )
    check_bom(options, results_format(options.output) if options.output else None)
    if options.output:
        check_folder(options.output)
        for name in options.sources if not options.overwrite_input else ():
            if is_same(Path(name), options.output):
                raise CommandFailed(
                    f"-o {options.output} would replace {name}, which is submitted: name another "
                    "file, or add --overwrite-input"
                )
    # The client comes first: it checks the address and the key before standard input is read.
    with connect(options, PATIENCE_S) as client:
        source = None
        if options.sources:
            form = Form(options.encoding, options.sep, not options.no_quotes, options.url_column)
            source = find_source(options.sources, form, options.output)
        if options.dry_run:
            return _dry_run(client, options, source)
        submission = _Submission(client, options, source)
        try:
            return submission.run()
        except KeyboardInterrupt:
            tell(f"\n{submission.how_to_continue()}")
            return ExitCode.INTERRUPTED
        except (PiqueueApiError, OSError):
            if submission.job is not None:
                tell(submission.how_to_continue())
            raise


class _Submission:
    """One run of the command; `job` is None until the job exists."""

    def __init__(self, client: Client, options: argparse.Namespace, source: Source | None) -> None:
        self.job: Job | None = None
        self._client = client
        self._options = options
        self._source = source
        self._left_out_count = 0

    def run(self) -> int:
        """Run all steps; gives the exit code."""
        options = self._options
        self.job = self._resumed() if options.resume else self._begin()
        if self.job.status == "draft":
            self._fill(self.job)
            self.job = self._client.submit_draft(self.job.id)
        elif options.resume and options.sources:
            tell(
                f"{self.job.id} is no longer a draft, and nothing is added to it: to submit more, "
                "leave out --resume"
            )
        if options.no_wait:
            print(self.job.id)
            return ExitCode.SOME_FAILED if self._left_out_count else ExitCode.ALL_SUCCEEDED
        self.job = self._follow(self.job)
        if options.output:
            with written_whole(options.output) as file:
                form = results_format(options.output)
                write_results(self._client, self.job.id, file, form, bom=options.bom)
        elif self.job.counts.total <= MOST_SHOWN:
            for result in self._client.results(self.job.id):
                print(scores(result))
        print(summary(self.job))
        if not options.output:
            note(f"to get the results: piqueue results {self.job.id} -o results.csv")
        return _exit_code(self.job, self._left_out_count)

    def how_to_continue(self) -> str:
        """Say what state the job is in, and which command continues it."""
        if self.job is None:
            return "nothing was submitted, unless the request was complete: see piqueue jobs"
        options = self._options
        command = [*options.program.split(), "--resume", self.job.id]
        state = "is done" if self.job.done else "continues"
        if self.job.status == "draft":
            state = "is not completely uploaded, and is deleted when others need its room"
            command += options.sources
        if options.output:
            command += ["-o", str(options.output), *(["--bom"] if options.bom else [])]
            command += ["--overwrite-input"] * options.overwrite_input
        if options.url:
            command += ["--url", options.url]
        return f"{self.job.id} {state}; to follow it: {shlex.join(command)}"

    def _resumed(self) -> Job:
        try:
            return self._client.job(self._options.resume)
        except PiqueueApiError as error:
            if error.code == "job_not_found":
                error.detail += ". An upload that was interrupted is deleted when others need its "
                error.detail += "room: to send its pictures again, leave out --resume"
            raise

    def _begin(self) -> Job:
        options = _job_options(self._options)
        match self._source:
            case Table() as table:
                with _named(table):
                    return self._client.submit_csv(table.rows, options, **_columns(self._options))
            case Lines() as lines:
                with _named(lines):
                    return self._client.submit_ndjson(lines.items, options)
            case S3Folder() as folder:
                with _listed(self._client, folder) as found:
                    self._left_out_count = found.other_count
                    return self._client.submit_ndjson(found.items, options)
            case Pictures() as pictures:
                self._check_room(size_of(pictures.files.values()))
        return self._client.open_draft(options)

    def _check_room(self, size_bytes: int) -> None:
        """Refuse pictures that are larger than the quota; warn if there is no room now."""
        limits = self._client.limits()
        quota_bytes = limits.quota_upload_bytes
        if limits.upload_bytes + size_bytes > quota_bytes:
            raise CommandFailed(
                f"the pictures have {_gb(size_bytes)}, and Piqueue stores "
                f"{_gb(limits.upload_bytes)} of yours and at most {_gb(quota_bytes)}: submit parts "
                "of the folder, wait until other jobs are done, or delete drafts (piqueue jobs "
                "--status draft lists them) and jobs with failed pictures"
            )
        room_bytes = limits.upload_room_bytes
        if room_bytes is not None and size_bytes > room_bytes:
            tell(
                f"the pictures have {_gb(size_bytes)}, and Piqueue has room for {_gb(room_bytes)} "
                "now: the upload waits when that is used up"
            )

    def _fill(self, draft: Job) -> None:
        """Upload the files that a draft does not have, and list those that it will not have."""
        if not isinstance(self._source, Pictures):
            raise CommandFailed(
                f"the upload of {draft.id} is not complete: name its pictures again"
            )
        files, found_count = self._source.files, len(self._source.files)
        present = set(self._client.draft_ids(draft.id)) if draft.counts.total else set()
        missing = {item_id: path for item_id, path in files.items() if item_id not in present}
        done = len(files) - len(missing)
        with Progress("uploaded", len(files), done) as progress:

            def sent(count: int) -> None:
                nonlocal done
                done += count
                progress.show(done)

            refused = upload(self._client, draft.id, missing, sent)
        others = [one for one in self._source.left_out if one.id not in present]
        left_out = [*others, *refused]
        self._left_out_count = len(left_out)
        if left_out:
            found_count += len(others)
            tell(f"{len(left_out)} of {found_count} files are not part of the job:")
            tell("\n".join(listed(left_out, len(left_out))))
        if hidden_count := self._source.hidden_count:
            note(f"{hidden_count} hidden files or folders are ignored")
        if len(refused) == len(files):
            self._client.delete(draft.id)
            self.job = None
            raise CommandFailed("no file is left to submit: correct those that are listed above")

    def _follow(self, job: Job) -> Job:
        note(f"{job.id}: {job.counts.total} pictures")
        with Progress("scored", job.counts.total, _over(job)) as progress:
            for latest in self._client.follow(job.id):
                progress.show(_over(latest))
        return latest


def _dry_run(client: Client, options: argparse.Namespace, source: Source | None) -> int:
    """Show what a submission would become; the exit code is that of the fetched URLs."""
    match source:
        case Table() as table:
            with _named(table):
                tried = client.dry_run_csv(table.rows, _job_options(options), **_columns(options))
        case Lines() as lines:
            with _named(lines):
                tried = client.dry_run_ndjson(lines.items, _job_options(options))
        case S3Folder() as folder:
            with _listed(client, folder) as found:
                tried = client.dry_run_ndjson(found.items, _job_options(options))
        case _:
            raise CommandFailed(
                "a dry run needs a table, a list or an S3 folder: submit pictures without --dry-run"
            )
    print(f"{tried.items} pictures for {tried.model.name}@{tried.model.version}")
    failed_count = sum(sum(host.failures.values()) for host in tried.hosts)
    nothing_succeeded = 0 < tried.sampled == failed_count
    if tried.eta_s is not None and not nothing_succeeded:
        print(f"estimated time: {f'{tried.eta_s} s' if tried.eta_s else 'less than 1 s'}")
    for host in tried.hosts:
        print(_tried(host))
    if nothing_succeeded:
        return ExitCode.NOTHING_SUCCEEDED
    return ExitCode.SOME_FAILED if failed_count else ExitCode.ALL_SUCCEEDED


def _tried(host: SampledHost) -> str:
    """One line about a host: how many of its URLs were tried and fetched, and what failed."""
    failures = host.failures.items()
    fetched = host.sampled - sum(count for code, count in failures if code.startswith("fetch_"))
    codes = ", ".join(f"{code} {count}" for code, count in failures)
    return f"{host.host}: {host.sampled} tried, {fetched} fetched, {codes or 'all succeeded'}"


@contextmanager
def _listed(client: Client, folder: S3Folder) -> Iterator[Listed]:
    """List the pictures of a folder in S3, if the service may fetch from its bucket.

    Raises:
        CommandFailed: the service may not fetch from the bucket, or there are no pictures.
    """
    if folder.bucket not in client.limits().s3_fetch_buckets:
        raise CommandFailed(
            f"{folder}: this Piqueue fetches no pictures from the bucket {folder.bucket}: "
            "ask its operator to add it to PIQUEUE_S3_FETCH_BUCKETS"
        )
    with list_pictures(folder) as found:
        hidden = f", and {found.hidden_count} hidden ones are ignored" if found.hidden_count else ""
        note(f"{folder}: {found.picture_count} pictures{hidden}")
        if found.other_count:
            tell(f"{found.other_count} other objects are not part of the job:")
            tell("\n".join(listed(found.others, found.other_count)))
        yield found


@contextmanager
def _named(source: Table | Lines) -> Iterator[None]:
    """Name the file and its own lines in a refusal of its rows."""
    try:
        yield
    except PiqueueApiError as error:
        restored = source.numbers.restored if isinstance(source, Table) else str
        of_rows = error.detail.startswith(("line ", "the job has no items"))
        if error.code in ("items_refused", "body_unreadable") or of_rows:
            error.detail = f"{source.name}: {restored(error.detail)}"
        rows = ({**row, "detail": restored(row["detail"])} for row in error.problems)
        error.problems = tuple(rows)
        raise


def _columns(options: argparse.Namespace) -> Columns:
    columns: Columns = {"url_column": options.url_column}
    if options.id_column:
        columns["id_column"] = options.id_column
    return columns


def _job_options(options: argparse.Namespace) -> JobOptions:
    given = {name: getattr(options, name, None) for name in JobOptions.__struct_fields__}
    if given["models"] and len(given["models"]) == 1:
        (given["model"],), given["models"] = given["models"], None
    return JobOptions(**{name: value for name, value in given.items() if value is not None})


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.3g} GB"


def _over(job: Job) -> int:
    """Items that neither wait nor run."""
    return job.counts.total - job.counts.waiting - job.counts.running


def _exit_code(job: Job, left_out_count: int) -> ExitCode:
    if not job.counts.succeeded:
        return ExitCode.NOTHING_SUCCEEDED
    complete = job.counts.succeeded == job.counts.total and not left_out_count
    return ExitCode.ALL_SUCCEEDED if complete else ExitCode.SOME_FAILED
