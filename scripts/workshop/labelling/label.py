"""Labels the pictures of a folder in the browser, those a model is least sure of first."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from piqueue.commands.sources import find_pictures
from piqueue.commands.terminal import CommandFailed, ExitCode, run
from scripts.workshop.label_table import LabelTable
from scripts.workshop.labelling.label_page import serve
from scripts.workshop.labelling.predictions_source import Opinion, read_opinions, score_pictures
from scripts.workshop.labelling.session import Labelling, Picture
from worker.jobs.settings import load_settings

EXAMPLES = """\
examples:
  piqueue label photos --labels beach,city,sunset       into photos/labels.csv
  piqueue label images --csv data.csv                   its labels are its columns of 0 and 1
  piqueue label photos --model scenes                   the least sure first, with its labels
  piqueue label photos --scores results.csv             the same from results you have

In the page the keys 1, 2, … set labels, Enter keeps what is shown and goes on, ? lists all keys."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue label`; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="piqueue label",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="pictures in it and below it")
    add_table_options(parser, "--csv", "else FOLDER/labels.csv; made, or gone on with")
    opinions = parser.add_mutually_exclusive_group()
    opinions.add_argument(
        "--scores", type=Path, metavar="FILE", help="results of the same pictures, .csv or .jsonl"
    )
    opinions.add_argument("--model", metavar="NAME[@VERSION]", help="score the pictures now")
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: label(options))


def add_table_options(parser: argparse.ArgumentParser, table: str, about: str) -> None:
    """Take the arguments that `label` and `review` share; `table` names the table's option."""
    parser.add_argument(table, dest="table", type=Path, metavar="CSV", help=about)
    parser.add_argument("--labels", metavar="A,B,…", help="else those of the table or the scores")
    parser.add_argument("--no-browser", action="store_true", help="only print the page's address")


def label(options: argparse.Namespace) -> int:
    """Show the pictures and take the answers; gives the exit code.

    Raises:
        CommandFailed: there are no pictures, or the table or the scores are not right.
    """
    folder: Path = options.folder
    if not folder.is_dir():
        raise CommandFailed(f"{folder}: there is no such folder")
    pictures = {path.relative_to(folder).as_posix(): path for path in find_pictures(folder)}
    if not pictures:
        raise CommandFailed(f"{folder}: no pictures there")
    opinions: Mapping[str, Opinion] = {}
    if options.scores:
        opinions = read_opinions(options.scores, pictures)
    elif options.model:
        opinions = score_pictures(pictures, options.model, load_settings())
    scored = sorted(opinions, key=lambda name: opinions[name].margin)
    order = [*scored, *(name for name in pictures if name not in opinions)]
    table = open_table(
        options.table or folder / "labels.csv",
        options.labels,
        [scored for opinion in opinions.values() for scored in opinion.scores],
    )
    shown = [Picture(name, pictures[name], opinions.get(name)) for name in order]
    return sit(Labelling(table, shown), browser=not options.no_browser)


def open_table(path: Path, named: str | None, scored: Iterable[str]) -> LabelTable:
    """The table at `path`, or a new one with the labels `named` or else those that were `scored`.

    Raises:
        CommandFailed: the table there is not right, or no label is known.
    """
    labels = [label.strip() for label in named.split(",")] if named else []
    if path.exists():
        return LabelTable.open(path, labels)
    labels = labels or list(dict.fromkeys(scored))
    if not labels:
        raise CommandFailed(f"{path} is not there yet: say which labels it gets, --labels a,b,c")
    return LabelTable.begin(path, labels)


def sit(labelling: Labelling, *, browser: bool) -> int:
    """Serve the page until it is closed or Ctrl-C is pressed; say what came of it."""
    try:
        serve(labelling, browser=browser)
    except KeyboardInterrupt:
        print()
    total = len(labelling.pictures)
    print(f"{labelling.table.path}: {labelling.answered_count} of {total} pictures are labelled")
    return ExitCode.ALL_SUCCEEDED
