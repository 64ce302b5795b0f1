"""Downloads the pictures of a table of URLs, safely and many at a time, and says what is gone."""

import argparse
import errno
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from model.images.decode import decode
from model.images.result import ImageRejected
from piqueue.commands.progress import Progress, tell
from piqueue.commands.terminal import CommandFailed, ExitCode, run, written_whole
from scripts.workshop.collecting.collect import DOWNLOAD_LOCATION
from scripts.workshop.collecting.unsplash import PhotoUnknown, Unsplash, UnsplashSettings
from scripts.workshop.label_table import NAME, URL, read_rows, write_rows
from worker.fetching.fetcher import Fetcher
from worker.fetching.session import FetchLimits
from worker.jobs.items import Rejection
from worker.jobs.settings import Settings, load_settings

# Beside the pictures: those whose download Unsplash was told of, a name a line.
REPORTED = ".reported"
_REPORT_COLUMNS = ("row", "name", "host", "reason", "detail")
_CHECK_SIZE = (32, 32)
_PATIENCE_S = 86400  # with a host that answers, for all pictures together
# What a file system says of a name that it does not take.
_NAME_FAULTS = {
    errno.EEXIST,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
}

EXAMPLES = """\
examples:
  piqueue download data.csv                             into images/ beside it
  piqueue download data.csv --out photos --kept labels.csv

What is there and whole is not downloaded again, so the same command goes on after Ctrl-C. Only
public addresses are asked, and those in $PIQUEUE_FETCH_ALLOW_NETWORKS. Exit code: 0 all pictures
are there, 2 some, 1 none."""


@dataclass(frozen=True)
class Gone:
    """Why the picture of a row is not there: a word for programs, a sentence for people."""

    reason: str
    detail: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue download`; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="piqueue download",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", type=Path, metavar="CSV")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="else images/ beside the table")
    parser.add_argument("--name-column", default=NAME, metavar="NAME", help="(%(default)s)")
    parser.add_argument("--url-column", default=URL, metavar="NAME", help="(%(default)s)")
    parser.add_argument(
        "--report", type=Path, metavar="CSV", help="of what is gone; else TABLE.gone.csv"
    )
    parser.add_argument(
        "--kept", type=Path, metavar="CSV", help="write the rows whose pictures are there"
    )
    parser.add_argument(
        "--wait", action="store_true", help="wait where Unsplash's hourly limit is reached"
    )
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: download(options))


def download(options: argparse.Namespace) -> int:
    """Fetch what is not there, write the report; gives the exit code.

    Raises:
        CommandFailed: the table or a setting is not right.
    """
    columns, rows = read_rows(options.table, (options.name_column, options.url_column))
    if not rows:
        raise CommandFailed(f"{options.table} has no rows")
    folder = options.out or options.table.with_name("images")
    names = [row[options.name_column] for row in rows]
    urls = [row[options.url_column] for row in rows]
    # Asked for before the first download, for it wants a key.
    unsplash = None
    if any(row.get(DOWNLOAD_LOCATION) for row in rows):
        unsplash = Unsplash(UnsplashSettings(), wait=options.wait)
    gone = fetch_pictures(folder, names, urls, load_settings())
    there = [row for at, row in enumerate(rows) if at not in gone]

    report = options.report or options.table.with_suffix(".gone.csv")
    write_rows(report, _REPORT_COLUMNS, [
        {"row": str(at + 2), "name": names[at], "host": host_of(urls[at]), **vars(gone[at])}
        for at in sorted(gone)
    ])  # fmt: skip
    if options.kept:
        write_rows(options.kept, columns, there)
    print(f"{len(rows) - len(gone)} of {len(rows)} pictures are in {folder}")
    if gone:
        counts = Counter(one.reason for one in gone.values())
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        print(f"{len(gone)} are gone ({reasons}), listed in {report}")
    unreported_count = 0
    if unsplash is not None:
        with unsplash:
            unreported_count = _report_downloads(unsplash, folder, there, options.name_column)
    if not there:
        return ExitCode.NOTHING_SUCCEEDED
    return ExitCode.SOME_FAILED if gone or unreported_count else ExitCode.ALL_SUCCEEDED


def fetch_pictures(
    folder: Path, names: Sequence[str], urls: Sequence[str], settings: Settings
) -> dict[int, Gone]:
    """Fetch each picture that is not in `folder` under its name; gives why some are not there.

    Each file is written whole or not at all. The keys are positions in `names`.
    """
    gone = _unfit_names(names)
    fit = [at for at in range(len(names)) if at not in gone]
    with ThreadPoolExecutor() as pool:
        is_there = pool.map(lambda at: _is_whole(folder / names[at], settings.max_pixels), fit)
        missing = [at for at, there in zip(fit, is_there, strict=True) if not there]
    done = len(names) - len(missing)
    fetcher = Fetcher(_limits(settings))
    try:
        with Progress("downloaded", len(names), done) as progress:
            for position, outcome in fetcher.fetch_all([urls[at] for at in missing]):
                at = missing[position]
                match outcome.payload:
                    case bytes(payload):
                        fault = _keep(folder / names[at], payload, settings.max_pixels)
                    case Rejection(code, detail=detail):
                        fault = Gone(code.value, detail)
                if fault:
                    gone[at] = fault
                done += 1
                progress.show(done)
    finally:
        fetcher.close()
    return gone


def _limits(settings: Settings) -> FetchLimits:
    """The bounds that a worker keeps too, but for its haste: nobody waits for a chunk here."""
    return FetchLimits(
        timeout_s=settings.fetch_timeout_s,
        max_bytes=settings.max_item_bytes,
        concurrency=settings.fetch_concurrency,
        per_host=settings.fetch_per_host,
        budget_bytes=settings.fetch_budget_bytes,
        patience_s=_PATIENCE_S,
        allow_networks=settings.fetch_allow_networks,
    )


def is_safe_name(name: str) -> bool:
    """Whether a name stays below the folder it is put in, and is not hidden there."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") or part.startswith(".") for part in parts) and not (
        set(name) & set("\\\0") or PurePosixPath(name).is_absolute()
    )


def host_of(url: str) -> str:
    """The host of a URL, nothing where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _unfit_names(names: Sequence[str]) -> dict[int, Gone]:
    gone: dict[int, Gone] = {}
    seen: dict[str, int] = {}
    for at, name in enumerate(names):
        if not is_safe_name(name):
            gone[at] = Gone("name", "is no name for a file below the folder: rename it")
        elif name in seen:
            gone[at] = Gone("name", f"row {seen[name] + 2} has this name too: rename one")
        else:
            seen[name] = at
    return gone


def _keep(path: Path, payload: bytes, max_pixels: int) -> Gone | None:
    """Write a picture, or say why it is none."""
    try:
        decode(payload, _CHECK_SIZE, max_pixels)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(payload)
    except ImageRejected as error:
        return Gone(error.code.value, error.detail)
    except OSError as error:
        if error.errno not in _NAME_FAULTS:
            raise
        return Gone("name", f"is no name for a file here: {error.strerror}")
    return None


def _is_whole(path: Path, max_pixels: int) -> bool:
    try:
        decode(path.read_bytes(), _CHECK_SIZE, max_pixels)
    except (OSError, ImageRejected):
        return False
    return True


def _report_downloads(
    unsplash: Unsplash, folder: Path, rows: Sequence[dict[str, str]], name_column: str
) -> int:
    """Tell Unsplash of each download it was not told of, as its guidelines ask.

    Returns how many are left for another time.
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
