"""HostSlots labelme's files into a table of labels and back, and splits a table for training."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from piqueue.commands.terminal import ExitCode, run
from scripts.workshop.label_table import SPLIT, LabelTable
from scripts.workshop.labelling.labelme import from_labelme, to_labelme

EXAMPLES = """\
examples:
  labelme photos --flags photos/labels.txt --nodata --autosave
  piqueue labels from-labelme photos labels.csv    a row for each picture that has a file
  piqueue labels to-labelme labels.csv photos      a file for each row, and photos/labels.txt
  piqueue labels split labels.csv                  sets a fifth of the pictures apart, for good"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue labels`; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="piqueue labels",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    action = actions.add_parser("from-labelme", help="write labelme's flags into a table")
    action.add_argument("folder", type=Path, help="the pictures, with labelme's files")
    action.add_argument("table", type=Path, metavar="CSV", help="made, or added to")
    action.set_defaults(command=lambda options: from_labelme(options.folder, options.table))

    action = actions.add_parser("to-labelme", help="write a table as labelme's files")
    action.add_argument("table", type=Path, metavar="CSV")
    action.add_argument("folder", type=Path, help="the pictures; the files go beside them")
    action.set_defaults(command=lambda options: to_labelme(options.table, options.folder))

    action = actions.add_parser("split", help="say which pictures train and which measure")
    action.add_argument("table", type=Path, metavar="CSV")
    action.set_defaults(command=lambda options: split(options.table))

    options = parser.parse_args(arguments)

    def command() -> int:
        options.command(options)
        return ExitCode.ALL_SUCCEEDED

    return run(parser.prog, command)


def split(path: Path) -> None:
    """Give the rows that have none a `split`: a fifth `val`, evenly over the labels, else `train`.

    Training does so by itself, but anew for each set of rows. Models are comparable if the
    pictures they are measured on stay the same, and were never trained on.
    """
    import numpy as np

    from model.training.data.dataset import VAL_SHARE, stratified_folds

    table = LabelTable.open(path)
    found = {name: table.get(name) or frozenset() for name in table.rows}
    new = [name for name in found if not table.rows[name].get(SPLIT)]
    labels = np.array([[label in found[name] for label in table.labels] for name in new])
    if new:
        folds = stratified_folds(new, labels.astype(np.float32), VAL_SHARE)
        for name, fold in zip(new, folds, strict=True):
            table.note(name, {SPLIT: "val" if fold == 0 else "train"})
        table.save()
    val_count = sum(row[SPLIT] == "val" for row in table.rows.values())
    print(f"{path}: {len(found) - val_count} train, {val_count} val")
