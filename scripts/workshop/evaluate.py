"""Scores labelled pictures by a model and writes how good it is, as a report and as JSON."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.training.training_log import CSV_NAME
from piqueue.commands.terminal import CommandFailed, run, written_whole
from scripts.workshop.reports.charts import Axis, Line, legend, line_chart, reliability_chart
from scripts.workshop.reports.figures import Figures, judge
from scripts.workshop.reports.page import (
    figure,
    gallery,
    heat_table,
    not_scored,
    page,
    picture_card,
    section,
    shown,
    table,
    tiles,
)
from scripts.workshop.reports.pictures import Pictures, Scored, find_model, find_pictures, score
from worker.jobs.settings import load_settings

MISTAKES_SHOWN = 24

_EXAMPLES = """\
examples:
  piqueue evaluate scenes labels.csv --split val
  piqueue evaluate model/bundled/scenes/2 labels.csv --images photos -o judged.html
  piqueue evaluate scenes@2 photos/           with photos/beach/*.jpg, photos/city/*.jpg, …

Beside the report is the same as JSON, under the same name with .json."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue evaluate`; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="piqueue evaluate",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="NAME, NAME@VERSION, or the folder of an artifact")
    add_picture_arguments(parser, "evaluation.html")
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: _evaluate(options))


def add_picture_arguments(parser: argparse.ArgumentParser, output: str) -> None:
    """Take what both reports need: the pictures, how to score them, where to write."""
    parser.add_argument(
        "pictures", type=Path, help="a table name,<label>,… of 0 and 1, or a folder of pictures"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="of the table's pictures")
    parser.add_argument("--split", help="only rows with this in their column split, such as val")
    parser.add_argument("--engine", choices=["auto", "litert", "tensorflow"], default="litert")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", default=Path(output), help="(%(default)s)"
    )


def write_report(output: Path, figures: Figures, html: str) -> None:
    """Write a report to `output` and its figures beside it."""
    for path, text in (
        (output.with_suffix(".json"), json.dumps(figures, indent=1)),
        (output, html),
    ):
        with written_whole(path) as file:
            file.write(text.encode())
    print(f"{output} and {output.with_suffix('.json').name}")


def _evaluate(options: argparse.Namespace) -> int:
    settings = load_settings()
    predictor, folder = find_model(options.model, settings, options.engine)
    card = predictor.card
    pictures = find_pictures(options.pictures, card.labels, options.images, options.split)
    if pictures.truth is None:
        raise CommandFailed(
            f"{options.pictures} says nothing of {', '.join(card.labels[:10])}: "
            "give a table with columns of these names, or a folder of pictures for each"
        )
    scored = score(predictor, pictures, settings)
    places = [card.labels.index(label) for label in pictures.labels]
    thresholds = [card.thresholds[place] for place in places]
    scores, truth = scored.scores[:, places], pictures.truth[scored.kept]
    mistakes = find_mistakes(truth, scores, thresholds)
    figures = {
        "model": {"name": card.name, "version": card.version, "sha256": card.sha256},
        "source": options.pictures.name + (f", split {options.split}" if options.split else ""),
        **judge(truth, scores, thresholds, pictures.labels),
        "not_judged": [label for label in card.labels if label not in pictures.labels],
        "refused": scored.refused,
        "mistakes": [
            {
                "name": pictures.names[scored.kept[row]],
                "label": pictures.labels[column],
                "truth": bool(truth[row, column]),
                "score": round(float(scores[row, column]), 5),
            }
            for row, column in mistakes
        ],
        "training": _training_log(folder / CSV_NAME),
    }
    cards = [
        mistake_card(pictures, scored, row, column, scores, thresholds)
        for row, column in mistakes[:MISTAKES_SHOWN]
    ]
    write_report(options.output, figures, _page(figures, cards))
    overall = figures["overall"]
    print(
        f"{card.name}@{card.version} on {len(truth)} pictures: "
        f"macro average precision {shown(overall['macro_average_precision'])}, "
        f"accuracy {shown(overall['accuracy'])}, "
        f"calibration error {shown(overall['expected_calibration_error'])}"
    )
    return 0


def find_mistakes(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], thresholds: Sequence[float]
) -> list[tuple[int, int]]:
    """The wrong answers as (row, column), those that the model was surest of first."""
    wrong = np.argwhere((scores >= np.asarray(thresholds)) != truth)
    worst = np.argsort([-abs(scores[row, at] - truth[row, at]) for row, at in wrong], kind="stable")
    return [(int(row), int(at)) for row, at in wrong[worst]]


def mistake_card(
    pictures: Pictures,
    scored: Scored,
    row: int,
    column: int,
    scores: NDArray[np.float64],
    thresholds: Sequence[float],
) -> str:
    """A wrong answer with its picture."""
    index = scored.kept[row]
    assert pictures.truth is not None
    label, has_it = pictures.labels[column], pictures.truth[index, column]
    said = "missed" if has_it else "wrongly given"
    labels = [
        name for name, is_one in zip(pictures.labels, pictures.truth[index], strict=True) if is_one
    ]
    return picture_card(
        pictures.paths[index],
        scored.sizes[row],
        pictures.names[index],
        [
            f"{label} {said}: {scores[row, column]:.2f}, threshold {thresholds[column]:.2f}",
            f"labelled {', '.join(labels) or 'as none'}",
        ],
    )


def _training_log(path: Path) -> list[dict[str, float | str | None]]:
    """The log of the training run, if it came with the model."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {
                name: cell if name == "stage" else float(cell) if cell else None
                for name, cell in row.items()
            }
            for row in csv.DictReader(file)
        ]


def _page(figures: Figures, mistakes: Sequence[str]) -> str:
    model, overall, labels = figures["model"], figures["overall"], figures["labels"]
    parts = [
        tiles(
            [
                (
                    "Average precision",
                    shown(overall["macro_average_precision"]),
                    "mean over the labels; 1 puts every picture that has a label first",
                ),
                ("F1", shown(overall["macro_f1"]), "mean over the labels, at their thresholds"),
                ("Right answers", f"{overall['accuracy']:.1%}", "of all, at the thresholds"),
                (
                    "All labels right",
                    f"{overall['all_labels_right']:.1%}",
                    f"of {figures['pictures']} pictures",
                ),
                (
                    "Calibration error",
                    shown(overall["expected_calibration_error"]),
                    "perfect scores would show about "
                    f"{shown(overall['expected_calibration_error_by_chance'])} here, by chance",
                ),
            ]
        ),
        section(
            "Label by label",
            "Precision: how many of the pictures given a label have it. Recall: how many of those "
            "that have it were given it. Both are at the label's threshold.",
            _label_table(labels),
        ),
        section(
            "Calibration",
            "Of all pictures scored 0.8, eight in ten should have the label: points belong on the "
            "dashed line. Small points stand for few pictures and scatter by chance; the bars "
            "say how many.",
            gallery(
                figure(
                    name,
                    reliability_chart(f"Reliability of {name}", one["reliability"]),
                    f"error {shown(one['expected_calibration_error'])}",
                )
                for name, one in [("all labels", overall), *labels.items()]
            ),
        ),
        section(
            "Thresholds",
            "What another threshold would do. The dotted line is the one in use.",
            legend(list(_CURVES)),
            gallery(_threshold_chart(name, one) for name, one in labels.items()),
        ),
        section(
            "Confusion of labels",
            "How often a picture that has the label of the row was wrongly given that of the "
            "column. Where both are the same: how often the label itself was missed.",
            heat_table(
                "pictures with",
                list(labels),
                {
                    name or "none of them": list(counts.values())
                    for name, counts in figures["pairs"].items()
                },
            ),
        ),
    ]
    if figures["training"]:
        parts.append(_training_section(figures["training"]))
    if mistakes:
        found = len(figures["mistakes"])
        first = (
            f"the {len(mistakes)} surest of {found}" if found > len(mistakes) else f"all {found}"
        )
        parts.append(
            section("Worst mistakes", f"Wrong answers, {first}, surest first.", gallery(mistakes))
        )
    parts += not_scored(figures["refused"])
    return page(
        f"{model['name']}@{model['version']}",
        f"{figures['pictures']} pictures of {figures['source']} · model {model['sha256'][:12]}",
        parts,
    )


_CURVES = (("precision", "first"), ("recall", "second"), ("F1", "third"))


def _threshold_chart(name: str, one: Figures) -> str:
    lines = [
        Line(curve, [(row[0], row[at]) for row in one["curve"] if row[at] is not None], style)
        for at, (curve, style) in enumerate(_CURVES, start=1)
    ]
    chart = line_chart(
        f"Precision, recall and F1 of {name}", lines, Axis("threshold"), Axis(""), one["threshold"]
    )
    return figure(name, chart, f"threshold {one['threshold']:.2f}")


def _label_table(labels: dict[str, Figures]) -> str:
    columns = ("average_precision", "precision", "recall", "f1", "accuracy")
    header = ["label", "pictures", "threshold", "average precision", "precision", "recall", "F1"]
    return table(
        [*header, "right answers", "calibration error"],
        [
            [
                name,
                str(one["positives"]),
                f"{one['threshold']:.2f}",
                *(shown(one[column]) for column in columns),
                shown(one["expected_calibration_error"]),
            ]
            for name, one in labels.items()
        ],
    )


def _training_section(rows: list[dict[str, Any]]) -> str:
    tuned = [row for row in rows if row["stage"] == "fine_tuning"] or rows
    last = max(row["epoch"] for row in tuned) or 1
    charts = []
    for measure in ("loss", "accuracy"):
        lines = [
            Line(f"fit {fold:.0f}, {name}", points, style)
            for name, column, style in (
                ("held out", f"held_out_{measure}", "second faint"),
                ("trained on", measure, "first faint"),
            )
            for fold in sorted({row["fold"] for row in tuned})
            if (
                points := [
                    (row["epoch"], row[column])
                    for row in tuned
                    if row["fold"] == fold and row[column] is not None
                ]
            )
        ]
        values = [value for line in lines for _, value in line.points]
        low, high = min(values), max(values)
        room = max((high - low) * 0.08, 0.01)
        top = high + room if measure == "loss" else min(high + room, 1)
        up = Axis("", max(low - room, 0), top)
        across = Axis("epoch", 0, last, int(min(last, 8)))
        charts.append(figure(measure, line_chart(f"{measure} by epoch", lines, across, up)))
    waited = max(row["data_wait_share"] for row in tuned)
    return section(
        "Training",
        "Fine-tuning, a line for each fit, on the pictures as augmented and on the fold held out. "
        f"No epoch waited for data for more than {waited:.1%} of its time.",
        legend([("trained on", "first"), ("held out", "second")]),
        gallery(charts),
    )


if __name__ == "__main__":
    sys.exit(main())
