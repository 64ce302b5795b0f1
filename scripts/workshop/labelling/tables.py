"""Converts the files of labelme to a table of labels and back, and splits a table."""

from collections.abc import Sequence
from pathlib import Path

from piqueue.commands.terminal import ExitCode, run
from scripts.commands.parser import command_parser
from scripts.workshop.label_table import GROUP, SPLIT, LabelTable
from scripts.workshop.labelling.labelme import from_labelme, to_labelme

EXAMPLES = """\
examples:
  labelme photos --flags photos/labels.txt
  piqueue labels from-labelme photos labels.csv    writes a row for each file of labelme
  piqueue labels to-labelme labels.csv photos      writes a file for each row, and photos/labels.txt
  piqueue labels split labels.csv                  assigns a fifth of the pictures to validation"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue labels` and return its exit code."""
    parser = command_parser("labels", __doc__, EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    about = "replace answers that differ, instead of keeping them"
    action = actions.add_parser("from-labelme", help="import the flags of labelme into a table")
    action.add_argument("folder", type=Path, help="the pictures, with the files of labelme")
    action.add_argument("table", type=Path, metavar="CSV", help="table to create or extend")
    action.add_argument("--replace", action="store_true", help=about)
    action.set_defaults(command=from_labelme)
    action = actions.add_parser("to-labelme", help="export a table as files of labelme")
    action.add_argument("table", type=Path, metavar="CSV", help="table of labels")
    action.add_argument("folder", type=Path, help="the pictures; the files are written beside them")
    action.add_argument("--replace", action="store_true", help=about)
    action.set_defaults(command=to_labelme)
    action = actions.add_parser("split", help="assign pictures to training and validation")
    action.add_argument("table", type=Path, metavar="CSV", help="table of labels")
    action.set_defaults(command=split)
    given = vars(parser.parse_args(arguments))
    command = given.pop("command")
    return run(parser.prog, lambda: command(**given))


def split(table: Path) -> int:
    """Set an empty `split` of a row: `val` for a fifth of them, stratified by label, else `train`.

    Rows with the same `group` get the same split.

    Training can do this by itself, but differently for each set of rows. Models are only
    comparable on pictures that stay the same and that no model was trained on.
    """
    import numpy as np

    from model.training.data.dataset import VAL_SHARE, group_numbers, stratified_folds

    labelled = LabelTable.open(table)
    used = [name for name in labelled.rows if not labelled.is_left_out(name)]
    new = [name for name in used if not labelled.rows[name].get(SPLIT)]
    if new:
        labels = np.array(
            [[labelled.rows[name][label] for label in labelled.labels] for name in new]
        )
        groups = {name: labelled.rows[name].get(GROUP) or "" for name in used}
        numbers = group_numbers([groups[name] for name in new])
        folds = stratified_folds(new, labels.astype(np.float32), VAL_SHARE, numbers)
        of_group = {
            group: part
            for name, group in groups.items()
            if group and (part := labelled.rows[name].get(SPLIT))
        }
        for name, fold in zip(new, folds, strict=True):
            part = of_group.get(groups[name], "val" if fold == 0 else "train")
            labelled.set_cell(name, SPLIT, part)
        labelled.save()
    val_count = sum(labelled.rows[name][SPLIT] == "val" for name in used)
    print(f"{table}: {len(used) - val_count} train, {val_count} val")
    return ExitCode.ALL_SUCCEEDED
