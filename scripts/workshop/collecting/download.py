"""Downloads the pictures of a table of URLs and reports those that are missing."""

import argparse
import errno
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from model.images.decode import decode
from model.images.result import ImageRejected
from piqueue.commands.progress import Progress, tell
from piqueue.commands.sources import is_same
from piqueue.commands.terminal import CommandFailed, ExitCode, run, written_whole
from scripts.commands.parser import command_parser
from scripts.workshop.collecting.photo_api import PhotoUnknown
from scripts.workshop.collecting.unsplash import DOWNLOAD_LOCATION, Unsplash, UnsplashSettings
from scripts.workshop.label_table import NAME, URL, LabelTable, label_columns
from scripts.workshop.table_file import Row, csv_bytes, read_rows, replace_file
from worker.fetching.fetcher import Fetcher
from worker.fetching.session import FetchLimits
from worker.jobs.host_statistics import host_of
from worker.jobs.items import Rejection, RejectionCode
from worker.jobs.settings import Settings, load_settings

# A file in the folder of the pictures: the names whose downloads were reported to Unsplash.
REPORTED = ".reported"
_REPORT_COLUMNS = ("row", "name", "host", "reason", "detail")
_CHECK_SIZE = (32, 32)
_PATIENCE_S = 86400  # for one host that answers; no chunk waits for these pictures
# The errors of a file system that rejects a name.
_NAME_ERRORS = {
    *(errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENOTEMPTY),
}

EXAMPLES = """\
examples:
  piqueue download data.csv                             into images/ beside the table
  piqueue download data.csv --out photos --kept labels.csv

To continue after Ctrl-C, run the same command again: it skips complete files. It connects only to
public addresses and to those in $PIQUEUE_FETCH_ALLOW_NETWORKS. Exit code: 0 if all pictures
are present, 2 if some are, 1 if none is."""


@dataclass(frozen=True)
class Missing:
    """Why the picture of a row is missing: a code and a sentence."""

    reason: str
    detail: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue download` and return its exit code."""
    parser = command_parser("download", __doc__, EXAMPLES)
    parser.add_argument("table", type=Path, metavar="CSV", help="one row per picture")
    for option, metavar, about in (
        ("--out", "FOLDER", "folder of the pictures (default: images, beside the table)"),
        ("--report", "CSV", "list of the missing pictures (default: TABLE.missing.csv)"),
        ("--kept", "CSV", "also add the rows whose pictures are present to this table"),
    ):
        parser.add_argument(option, type=Path, metavar=metavar, help=about)
    for column in (NAME, URL):
        about = f"column of the {column} (default: {column})"
        parser.add_argument(f"--{column}-column", default=column, metavar="NAME", help=about)
    parser.add_argument("--wait", action="store_true", help="wait at Unsplash's hourly limit")
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: download(options))


def download(options: argparse.Namespace) -> int:
    """Fetch the missing pictures and write the report; returns the exit code.

    Raises:
        CommandFailed: the table or a setting is invalid.
    """
    report = options.report or options.table.with_suffix(".missing.csv")
    for table in (options.table, options.kept):
        if table is not None and is_same(table, report):
            raise CommandFailed(f"--report {report} would replace {table}: name another file")
    columns, rows = read_rows(options.table, (options.name_column, options.url_column))
    if not rows:
        raise CommandFailed(f"{options.table} has no rows: add one for each picture")
    folder = options.out or options.table.with_name("images")
    names = [row[options.name_column] for row in rows]
    urls = [row[options.url_column] for row in rows]
    # Before the first download, as it fails without an access key.
    from_unsplash = any(row.get(DOWNLOAD_LOCATION) for row in rows)
    unsplash = Unsplash(UnsplashSettings(), wait=options.wait) if from_unsplash else None
    missing = fetch_pictures(folder, names, urls, load_settings())
    present = [row for index, row in enumerate(rows) if index not in missing]

    replace_file(report, csv_bytes(_REPORT_COLUMNS, [
        {"row": str(at + 2), "name": names[at], "host": host_of(urls[at]), **vars(missing[at])}
        for at in sorted(missing)
    ]))  # fmt: skip
    if options.kept:
        keep_rows(options.kept, columns, present, options.name_column)
    print(f"{len(present)} of {len(rows)} pictures are in {folder}")
    if missing:
        counts = Counter(one.reason for one in missing.values())
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        print(f"{len(missing)} are missing ({reasons}), listed in {report}")
    unreported_count = 0
    if unsplash is not None:
        with unsplash:
            unreported_count = _report_downloads(unsplash, folder, present, options.name_column)
    if not present:
        return ExitCode.NOTHING_SUCCEEDED
    return ExitCode.SOME_FAILED if missing or unreported_count else ExitCode.ALL_SUCCEEDED


def keep_rows(path: Path, columns: Sequence[str], rows: Sequence[Row], name_column: str) -> None:
    """Add rows to a table, which may have been labelled and split before.

    Raises:
        CommandFailed: the table is invalid.
    """
    labels = label_columns(columns, rows, name_column)
    if path.exists():
        table = LabelTable.open(path, name_column=name_column, may_lack_labels=True)
        for label in labels:
            if label not in table.labels:
                table.add_label(label)
    else:
        table = LabelTable(path, labels, columns, name_column)
    for row in rows:
        table.add(row)
    table.save()


def fetch_pictures(
    folder: Path, names: Sequence[str], urls: Sequence[str], settings: Settings
) -> dict[int, Missing]:
    """Fetch the pictures that `folder` lacks; returns those still missing, by index in `names`.

    Each file is written completely or not at all.
    """
    missing = _invalid_names(names)
    valid = [index for index in range(len(names)) if index not in missing]
    with ThreadPoolExecutor() as pool:
        checks = pool.map(lambda index: _is_complete(folder / names[index], settings), valid)
        wanted = [index for index, complete in zip(valid, checks, strict=True) if not complete]
    done = len(names) - len(wanted)
    with (
        closing(Fetcher(replace(FetchLimits.of(settings), patience_s=_PATIENCE_S))) as fetcher,
        Progress("downloaded", len(names), done) as progress,
    ):
        for position, outcome in fetcher.fetch_all([urls[index] for index in wanted]):
            index = wanted[position]
            if isinstance(payload := outcome.payload, Rejection):
                detail = payload.detail
                if payload.code is RejectionCode.FETCH_BLOCKED_ADDRESS:
                    detail += ": allow its network with PIQUEUE_FETCH_ALLOW_NETWORKS"
                missing[index] = Missing(payload.code.value, detail)
            elif problem := _write(folder / names[index], payload, settings.max_pixels):
                missing[index] = problem
            done += 1
            progress.show(done)
    return missing


def is_safe_name(name: str) -> bool:
    """Whether a name is that of a file below its folder that is not hidden."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") or part.startswith(".") for part in parts) and not (
        set(name) & set("\\\0") or PurePosixPath(name).is_absolute()
    )


def _invalid_names(names: Sequence[str]) -> dict[int, Missing]:
    invalid: dict[int, Missing] = {}
    indexes: dict[str, int] = {}
    for index, name in enumerate(names):
        first = indexes.setdefault(name, index)
        if not is_safe_name(name):
            invalid[index] = Missing("name", "not a valid file name below the folder: rename it")
        elif first != index:
            invalid[index] = Missing("name", f"row {first + 2} has the same name: rename one")
    return invalid


def _write(path: Path, payload: bytes, max_pixels: int) -> Missing | None:
    """Write a picture, or return why it cannot be written."""
    try:
        decode(payload, _CHECK_SIZE, max_pixels)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(payload)
    except ImageRejected as error:
        return Missing(error.code.value, error.detail)
    except OSError as error:
        if error.errno not in _NAME_ERRORS:
            raise
        return Missing("name", f"the file system rejects the name: {error.strerror}")
    return None


def _is_complete(path: Path, settings: Settings) -> bool:
    with suppress(OSError, ImageRejected):
        decode(path.read_bytes(), _CHECK_SIZE, settings.max_pixels)
        return True
    return False


def _report_downloads(
    unsplash: Unsplash, folder: Path, rows: Sequence[dict[str, str]], name_column: str
) -> int:
    """Report each new download to Unsplash, as its guidelines require.

    Returns how many could not be reported yet.
    """
    reported_path = folder / REPORTED
    reported = set(reported_path.read_text().splitlines()) if reported_path.exists() else set()
    due = [row for row in rows if row[DOWNLOAD_LOCATION] and row[name_column] not in reported]
    if not due:
        return 0
    done = 0
    with Progress("reported", len(due)) as progress, reported_path.open("a") as file:
        for row in due:
            try:
                unsplash.report_download(row[DOWNLOAD_LOCATION])
                print(row[name_column], file=file, flush=True)
            except PhotoUnknown as error:
                tell(f"{row[name_column]}: {error}")
            except CommandFailed as error:
                tell(f"{len(due) - done} downloads are not reported to Unsplash yet: {error}")
                break
            done += 1
            progress.show(done)
    return len(due) - done
