"""Opens a page for labelling the pictures of a folder, the least certain predictions first."""

import argparse
import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from piqueue.commands.pictures import find_pictures
from piqueue.commands.terminal import CommandFailed, ExitCode, connection_options, run
from scripts.commands.parser import command_parser
from scripts.workshop.label_table import LabelTable
from scripts.workshop.labelling.label_page import serve
from scripts.workshop.labelling.predictions_source import (
    Prediction,
    predict,
    read_mistakes,
    read_predictions,
)
from scripts.workshop.labelling.session import LabelSession, Picture
from scripts.workshop.labelling.teaching import Teaching
from worker.jobs.settings import load_settings

# More labels of a model than the page can show.
MOST_SCORED = 50
EXAMPLES = """\
examples:
  piqueue label photos --labels beach,city,sunset       writes photos/labels.csv
  piqueue label images --csv data.csv                   the labels are the columns of 0 and 1
  piqueue label photos --model scenes                   suggests the predictions of a model
  piqueue label photos --scores results.csv             suggests predictions from results
  piqueue label photos --csv labels.csv --mistakes evaluation.json
                                                        shows what a model gets wrong
  piqueue label photos --csv labels.csv --from job_01…  can teach a model at the end

On the page, the keys 1, 2, … toggle labels, Enter saves and continues, and ? lists all keys."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue label` and return its exit code."""
    parser = command_parser("label", __doc__, EXAMPLES, connection_options())
    parser.add_argument("folder", type=Path, help="pictures, including those in subfolders")
    add_table_options(parser, "--csv")
    source = parser.add_mutually_exclusive_group()
    about = "results of these pictures, .csv or .jsonl"
    source.add_argument("--scores", type=Path, metavar="FILE", help=about)
    source.add_argument("--model", metavar="NAME[@VERSION]", help="score the pictures first")
    about = "show only the wrong predictions in this report of evaluate, the worst first"
    source.add_argument("--mistakes", type=Path, metavar="JSON", help=about)
    about = "job that keeps features of these pictures, from which the page can teach a model"
    parser.add_argument("--from", dest="job", metavar="JOB", help=about)
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: label(options))


def add_table_options(parser: argparse.ArgumentParser, table: str) -> None:
    """Add the options that `label` and `review` share; `table` is the name of the table's."""
    about = "table to create or extend (default: FOLDER/labels.csv)"
    parser.add_argument(table, dest="table", type=Path, metavar="CSV", help=about)
    about = (
        "labels of the table, one with a comma in double quotes (default: its columns of 0 and 1, "
        "or those of the model)"
    )
    parser.add_argument("--labels", metavar="A,B,…", help=about)
    parser.add_argument("--no-browser", action="store_true", help="only print the page's address")


def label(options: argparse.Namespace) -> int:
    """Show the pictures and save the answers; returns the exit code.

    Raises:
        CommandFailed: there are no pictures, or the table or the scores are invalid.
    """
    folder: Path = options.folder
    if not folder.is_dir():
        raise CommandFailed(f"{folder} does not exist: correct the path")
    pictures = {path.relative_to(folder).as_posix(): path for path in find_pictures(folder)}
    if not pictures:
        raise CommandFailed(f"{folder}: there are no pictures: give another folder")
    predictions: Mapping[str, Prediction] = {}
    if options.scores:
        predictions = read_predictions(options.scores, pictures)
    elif options.model:
        predictions = predict(pictures, options.model, load_settings())
    order = sorted(predictions, key=lambda name: predictions[name].margin)
    if options.mistakes:
        predictions = read_mistakes(options.mistakes, pictures)
        order = [*predictions]
    else:
        order += [name for name in pictures if name not in predictions]
    table = open_table(
        options.table or folder / "labels.csv",
        options.labels,
        [scored for prediction in predictions.values() for scored in prediction.scores],
    )
    shown = [Picture(name, pictures[name], predictions.get(name)) for name in order]
    job = options.job and Teaching(options.job, options.url, options.api_key)
    return run_session(LabelSession(table, shown), browser=not options.no_browser, teaching=job)


def open_table(path: Path, labels: str | None, scored: Iterable[str]) -> LabelTable:
    """The table at `path`, or a new one with `labels`, a row of CSV, or else `scored`.

    Raises:
        CommandFailed: the table is invalid, or it is new and there are no labels for it.
    """
    names = _label_names(labels) if labels else []
    if path.exists():
        return LabelTable.open(path, names)
    if not names and len(names := list(dict.fromkeys(scored))) > MOST_SCORED:
        raise CommandFailed(
            f"the model has {len(names):,} labels: name those to answer with --labels a,b,c, and "
            """quote one that has a comma, as in --labels 'a,"b, c"'"""
        )
    if not names:
        raise CommandFailed(f"{path} does not exist yet: give its labels with --labels a,b,c")
    return LabelTable.create(path, names)


def _label_names(labels: str) -> list[str]:
    """The labels of an option, such as `beach,"maillot, tank suit"`."""
    try:
        [names] = csv.reader([labels], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        raise CommandFailed(
            f"--labels {labels}: {error}: separate labels with commas, and quote one that has a "
            """comma, as in 'beach,"maillot, tank suit"'"""
        ) from None
    return [name.strip() for name in names]


def run_session(session: LabelSession, *, browser: bool, teaching: Teaching | None) -> int:
    """Serve the page until the user finishes or presses Ctrl-C, and print the result."""
    try:
        serve(session, browser=browser, teaching=teaching)
    except KeyboardInterrupt:
        print()
    total = len(session.pictures)
    print(f"{session.table.path}: {session.labelled_count} of {total} pictures are labelled")
    return ExitCode.ALL_SUCCEEDED
