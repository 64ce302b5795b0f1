"""Collects photos for training: keywords in, a table of URLs, labels and credits out."""

import argparse
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from piqueue.commands.progress import Progress, tell
from piqueue.commands.terminal import CommandFailed, ExitCode, run
from scripts.workshop.collecting.unsplash import LimitReached, Photo, Unsplash, UnsplashSettings
from scripts.workshop.label_table import GUESSED, LabelTable, check_label

# Which searches found a photo, as keyword/page, so that a later run goes on from there.
FOUND_BY = "found_by"
DOWNLOAD_LOCATION = "download_location"
_ABOUT_CHARACTERS = 200

EXAMPLES = """\
examples:
  export PIQUEUE_UNSPLASH_KEY=…          the access key of your application at Unsplash
  piqueue collect --keyword beach --keyword city --count 300 --out data.csv
  piqueue collect --keyword sunset --negative drawing --other desk --count 100 --out data.csv

Run it again with the same --out to go on, to have more, or to add keywords. Exit code: 0 all
were found, 2 some, 1 none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue collect`; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="piqueue collect",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--keyword",
        action="append",
        default=[],
        dest="keywords",
        metavar="WORDS",
        help="photos to search for; also the label they get",
    )
    parser.add_argument(
        "--other",
        action="append",
        default=[],
        dest="others",
        metavar="WORDS",
        help="search for these too, for photos without any label",
    )
    parser.add_argument(
        "--negative",
        action="append",
        default=[],
        dest="negatives",
        metavar="WORDS",
        help="leave out photos whose tags or description say so",
    )
    parser.add_argument(
        "--count", type=int, required=True, metavar="N", help="photos to find by each keyword"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="CSV")
    parser.add_argument(
        "--wait", action="store_true", help="wait where the hour's requests are used up"
    )
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: collect(options))


def collect(options: argparse.Namespace) -> int:
    """Search, label, write; gives the exit code.

    Raises:
        CommandFailed: the options or the table are not right, or Unsplash refuses.
    """
    searches = [*options.keywords, *options.others]
    if not options.keywords or len(set(searches)) < len(searches) or options.count < 1:
        raise CommandFailed("give --keyword, each once, and a --count of 1 or more")
    for words in searches:
        check_label(words)
    table = _open(options.out, options.keywords)
    with Unsplash(UnsplashSettings(), wait=options.wait) as unsplash:
        collector = _Collector(unsplash, table, options.negatives, options.count)
        try:
            for words in searches:
                collector.search(words, is_label=words in options.keywords)
        except LimitReached as limit:
            tell(f"piqueue collect: {limit}")
    for words in searches:
        print(f"{words}: {len(_found_by(table, words))} of {options.count} photos")
    print(f"{options.out}: {len(table.rows)} photos")
    if not table.rows:
        return ExitCode.NOTHING_SUCCEEDED
    complete = all(len(_found_by(table, words)) >= options.count for words in searches)
    return ExitCode.ALL_SUCCEEDED if complete else ExitCode.SOME_FAILED


class _Collector:
    """Fills a table, saved after each page."""

    def __init__(
        self, unsplash: Unsplash, table: LabelTable, negatives: Collection[str], count: int
    ) -> None:
        self._unsplash = unsplash
        self._table = table
        self._count = count
        self._negative = [
            re.compile(rf"(?<!\w){re.escape(' '.join(words.split()))}(?!\w)", re.IGNORECASE)
            for words in negatives
        ]
        self._app = UnsplashSettings().app

    def search(self, words: str, *, is_label: bool) -> None:
        """Find photos by `words` until there are enough, or no more."""
        before = _found_by(self._table, words)
        page, found_count = max(before.values(), default=1), len(before)
        with Progress(words, self._count, found_count) as progress:
            while found_count < self._count:
                answer = self._unsplash.search(words, page)
                wanted = [photo for photo in answer.results if not self._is_negative(photo)]
                for photo in wanted:
                    if found_count < self._count and self._add(photo, words, page, is_label):
                        found_count += 1
                self._table.save()
                progress.show(found_count)
                if page >= answer.total_pages:
                    return
                page += 1

    def _is_negative(self, photo: Photo) -> bool:
        return any(words.search(photo.about) for words in self._negative)

    def _add(self, photo: Photo, words: str, page: int, is_label: bool) -> bool:
        """Take a photo in, or give one that is there a further label; False if it has it."""
        name = f"{photo.id}.jpg"
        searches = self._table.rows.get(name, {}).get(FOUND_BY, "")
        if words in _searches(searches):
            return False
        labels = self._table.get(name) or frozenset()
        referral = f"?utm_source={self._app}&utm_medium=referral"
        self._table.put(
            name,
            labels | {words} if is_label else labels,
            {
                "url": photo.urls.small,
                "photographer": _words(photo.user.name),
                "photographer_url": photo.user.links.html + referral,
                "photo_url": photo.links.html + referral,
                DOWNLOAD_LOCATION: photo.links.download_location,
                "about": _words(photo.about),
                GUESSED: "yes",
                FOUND_BY: ";".join(filter(None, (searches, f"{words}/{page}"))),
            },
        )
        return True


def _words(text: str) -> str:
    """What a stranger wrote, so that no spreadsheet takes it for a formula."""
    return text.strip().lstrip("=+-@")[:_ABOUT_CHARACTERS]


def _open(path: Path, keywords: Sequence[str]) -> LabelTable:
    """The table that is there, with a column for each keyword, or a new one."""
    if not path.exists():
        return LabelTable.begin(path, keywords)
    table = LabelTable.open(path)
    for keyword in keywords:
        if keyword not in table.labels:
            table.add_label(keyword)
    return table


def _found_by(table: LabelTable, words: str) -> dict[str, int]:
    """The photos that a search found, by name, and on which page."""
    found = ((name, _searches(row.get(FOUND_BY, ""))) for name, row in table.rows.items())
    return {name: searches[words] for name, searches in found if words in searches}


def _searches(text: str) -> dict[str, int]:
    """Read `found_by`: the page on which each keyword found the photo."""
    parts = (part.rpartition("/") for part in text.split(";") if part)
    return {words: int(page) for words, _, page in parts if page.isdecimal()}
