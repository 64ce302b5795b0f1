"""Finds photos for training and writes a table of URLs, labels, licences and authors."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from model.training.data.table import GUESSED, YES
from piqueue.commands.progress import Progress, tell
from piqueue.commands.terminal import CommandFailed, ExitCode, run
from scripts.commands.parser import command_parser
from scripts.workshop.collecting.openverse import (
    FREE_LICENSES,
    LICENSES,
    Openverse,
    OpenverseSettings,
)
from scripts.workshop.collecting.photo_api import FoundPhoto, LimitReached, PhotoSource
from scripts.workshop.collecting.unsplash import Unsplash, UnsplashSettings
from scripts.workshop.label_merge import SET, UNSET
from scripts.workshop.label_table import NAME, LabelTable, check_label

# The searches that found a photo, as keyword/page;…: the next run continues from these pages.
FOUND_BY = "found_by"
_DESCRIPTION_CHARACTERS = 200

UNSPLASH_TERMS = (
    "Unsplash's API guidelines forbid training models on its photos: ask Unsplash for its "
    "permission before you do, or collect from Openverse"
)
EXAMPLES = """\
Openverse finds pictures of Flickr, Wikimedia Commons and others by their licence. Unsplash's API
guidelines forbid training models on its photos.

examples:
  piqueue collect --keyword beach --keyword city --count 300 --out data.csv
  piqueue collect --keyword sunset --negative drawing --other desk --count 100 --out data.csv
  piqueue collect --keyword cat --license cc0 --license pdm --count 100 --out cats.csv

  export PIQUEUE_UNSPLASH_KEY=…          the access key of your application at Unsplash
  piqueue collect --source unsplash --keyword beach --count 300 --out data.csv

To continue after an interruption, run the same command again. A larger --count or more keywords
extend the table. Exit code: 0 if all photos were found, 2 if some were, 1 if none was."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue collect` and return its exit code."""
    parser = command_parser("collect", __doc__, EXAMPLES)
    for option, about in (
        ("--keyword", "search for these words and use them as a label (repeatable)"),
        ("--other", "search for these words too, without a label (repeatable)"),
        (
            "--negative",
            "leave out photos whose tags or description contain these words (repeatable)",
        ),
    ):
        parser.add_argument(option, action="append", default=[], metavar="WORDS", help=about)
    about = "photos to find for each keyword"
    parser.add_argument("--count", type=int, required=True, metavar="N", help=about)
    parser.add_argument("--out", type=Path, required=True, metavar="CSV", help="table to write")
    about = "where to search (default: %(default)s)"
    parser.add_argument(
        "--source", choices=["openverse", "unsplash"], default="openverse", help=about
    )
    about = f"licence on Openverse (repeatable; default: {', '.join(FREE_LICENSES)})"
    parser.add_argument("--license", action="append", choices=LICENSES, default=[], help=about)
    parser.add_argument("--wait", action="store_true", help="wait at the limit of requests")
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: collect(options))


def collect(options: argparse.Namespace) -> int:
    """Search, label and write; returns the exit code.

    Raises:
        CommandFailed: an option or the table is invalid, or a request is refused.
    """
    keywords = [*options.keyword, *options.other]
    if not options.keyword or len(set(keywords)) < len(keywords) or options.count < 1:
        raise CommandFailed("give at least one --keyword, each only once, and a --count above 0")
    for keyword in keywords:
        check_label(keyword)
    if options.out.exists():
        table = LabelTable.open(options.out)
        for keyword in options.keyword:
            if keyword not in table.labels:
                table.add_label(keyword)
    else:
        table = LabelTable.create(options.out, options.keyword)
    with _open_source(options) as source:
        try:
            for keyword in keywords:
                _search(source, table, keyword, options)
        except LimitReached as limit:
            tell(f"piqueue collect: {limit}")
    counts = {keyword: len(_pages_by_name(table, keyword)) for keyword in keywords}
    for keyword, count in counts.items():
        print(f"{keyword}: {count} of {options.count} photos")
    print(f"{options.out}: {len(table.rows)} photos")
    if not table.rows:
        return ExitCode.NOTHING_SUCCEEDED
    complete = min(counts.values()) >= options.count
    return ExitCode.ALL_SUCCEEDED if complete else ExitCode.SOME_FAILED


def _open_source(options: argparse.Namespace) -> PhotoSource:
    if options.source == "openverse":
        licenses = options.license or FREE_LICENSES
        return Openverse(OpenverseSettings(), licenses, wait=options.wait)
    if options.license:
        raise CommandFailed("--license is for Openverse only: leave it out")
    tell(f"piqueue collect: {UNSPLASH_TERMS}")
    return Unsplash(UnsplashSettings(), wait=options.wait)


def _search(
    source: PhotoSource, table: LabelTable, keyword: str, options: argparse.Namespace
) -> None:
    """Add photos until `keyword` has enough or there are no more; saves after each page."""
    negatives = [
        re.compile(rf"(?<!\w){re.escape(' '.join(words.split()))}(?!\w)", re.IGNORECASE)
        for words in options.negative
    ]
    before = _pages_by_name(table, keyword)
    page, found_count = max(before.values(), default=1), len(before)
    with Progress(keyword, options.count, found_count) as progress:
        while found_count < options.count:
            answer = source.search(keyword, page)
            for photo in answer.photos:
                if any(words.search(photo.text) for words in negatives):
                    continue
                is_label = keyword in options.keyword
                if found_count < options.count and _add(table, photo, keyword, page, is_label):
                    found_count += 1
            table.save()
            progress.show(found_count)
            if page >= answer.page_count:
                return
            page += 1


def _add(table: LabelTable, photo: FoundPhoto, keyword: str, page: int, is_label: bool) -> bool:
    """Add a photo, or the label to a photo in the table; False if `keyword` found it before."""
    name = photo.name
    found_by = table.rows.get(name, {}).get(FOUND_BY, "")
    if keyword in _pages(found_by):
        return False
    labels = (table.get(name) or frozenset()) | ({keyword} if is_label else set())
    table.add(
        {
            NAME: name,
            **{label: SET if label in labels else UNSET for label in table.labels},
            **{column: _plain_cell(cell) for column, cell in photo.columns.items()},
            "about": _plain_cell(photo.text)[:_DESCRIPTION_CHARACTERS],
            GUESSED: YES,
        }
    )
    table.set_cell(name, FOUND_BY, ";".join(filter(None, (found_by, f"{keyword}/{page}"))))
    return True


def _plain_cell(text: str) -> str:
    """Text from the Internet as a cell that no spreadsheet runs as a formula."""
    return text.lstrip("=+-@＝＋－＠\u200b\ufeff \t\r\n").rstrip()


def _pages_by_name(table: LabelTable, keyword: str) -> dict[str, int]:
    """The names of the photos that `keyword` found, with their pages."""
    found = ((name, _pages(row.get(FOUND_BY, ""))) for name, row in table.rows.items())
    return {name: pages[keyword] for name, pages in found if keyword in pages}


def _pages(found_by: str) -> dict[str, int]:
    """The page on which each keyword found a photo, from a cell of the column `found_by`."""
    parts = (part.rpartition("/") for part in found_by.split(";") if part)
    return {keyword: int(page) for keyword, _, page in parts if page.isdecimal()}
