"""Evaluates a model on labelled pictures, and writes a report as HTML and as JSON."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
from markupsafe import Markup

from model.training.training_log import CSV_NAME
from piqueue.commands.terminal import CommandFailed, run
from scripts.commands.parser import command_parser
from scripts.workshop.reports import page, scoring
from scripts.workshop.reports.charts import Axis, Line, legend, line_chart, reliability_chart
from scripts.workshop.reports.metrics import Metrics, Truth, evaluate_scores
from worker.jobs.settings import load_settings

WRONG_SHOWN = 24

_EXAMPLES = """\
examples:
  piqueue evaluate scenes labels.csv --split val
  piqueue evaluate model/bundled/scenes/5 labels.csv --images photos -o scenes-5.html
  piqueue evaluate scenes@5 photos/           with photos/beach/*.jpg, photos/city/*.jpg, …

A file with the same name and the suffix .json has the same metrics as JSON."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue evaluate` and return its exit code."""
    parser = command_parser("evaluate", __doc__, _EXAMPLES)
    parser.add_argument("model", help=scoring.MODEL_HELP)
    scoring.add_picture_options(parser, "evaluation.html")
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: _evaluate(options))


def _evaluate(options: argparse.Namespace) -> int:
    settings = load_settings()
    predictor, folder = scoring.find_model(options.model, settings, options.engine)
    known = predictor.card.labels
    pictures = scoring.find_pictures(options, known)
    if pictures.truth is None:
        raise CommandFailed(
            f"{options.pictures} has none of the labels {', '.join(known[:10])}: "
            "give a table with columns of these names, or a folder of pictures for each"
        )
    scored = scoring.score(predictor, pictures, pictures.labels, settings)
    truth = pictures.truth[list(scored.rows)]
    wrong = scoring.ranked(scored.predicted != truth, abs(scored.scores - truth))
    metrics: Metrics = {
        "model": scored.model,
        "source": pictures.source,
        **evaluate_scores(truth, scored.scores, scored.thresholds, scored.labels),
        "not_evaluated": [label for label in known if label not in scored.labels],
        "rejected": scored.rejected,
        "wrong_predictions": [
            {
                "name": scored.pictures.names[row],
                "label": scored.labels[column],
                "truth": bool(truth[row, column]),
                "score": round(float(scored.scores[row, column]), 5),
            }
            for row, column in wrong
        ],
        "training": _training_log(folder / CSV_NAME),
    }
    correct = _correct_command(pictures, options.output) if wrong else None
    cards = [_wrong_card(scored, truth, *cell) for cell in wrong[:WRONG_SHOWN]]
    page.write_report(
        options.output,
        metrics,
        "evaluation.html",
        cards=cards,
        correct=correct,
        calibration=_calibration_charts(metrics),
        curves=[_threshold_chart(name, one) for name, one in metrics["labels"].items()],
        curves_legend=legend(list(_CURVES)),
        training=_training_charts(metrics["training"]),
        training_legend=legend([("trained on", "first"), ("held out", "second")]),
        data_wait_share=max(
            (row["data_wait_share"] for row in _epochs(metrics["training"])), default=0
        ),
    )
    overall = metrics["overall"]
    figures = (
        f"{name.replace('expected_', '').replace('_', ' ')} {page.formatted(overall[name])} "
        f"({page.between(ends)})"
        for name, ends in overall["intervals_95"].items()
    )
    print(f"{scored} on {len(truth)} pictures: {', '.join(figures)}")
    if correct:
        wrong_count = len({row for row, _ in wrong})
        print(f"{wrong_count} pictures have wrong predictions. To correct wrong labels:\n{correct}")
    return 0


def _correct_command(pictures: scoring.Pictures, report: Path) -> str | None:
    """The command that shows the wrong predictions to a person; None if no table has the labels."""
    if pictures.table is None:
        return None
    paths = (pictures.folder, "--csv", pictures.table, "--mistakes", report.with_suffix(".json"))
    return shlex.join(map(str, ("piqueue", "label", *paths)))


def _wrong_card(
    scored: scoring.Scored, truth: Truth, row: int, column: int
) -> tuple[str, str, Sequence[str]]:
    label = scored.labels[column]
    kind = "false negative" if truth[row, column] else "false positive"
    score, threshold = scored.scores[row, column], scored.thresholds[column]
    labels = [name for name, is_one in zip(scored.labels, truth[row], strict=True) if is_one]
    facts = [
        f"{label}, {kind}: {score:.2f}, threshold {threshold:.2f}",
        f"labels: {', '.join(labels) or 'none'}",
    ]
    return page.card(scored, row, facts)


def _training_log(path: Path) -> list[dict[str, float | str | None]]:
    """The log of the training run, empty if the artifact does not have it."""
    if not path.is_file():
        return []
    log = pandas.read_csv(path)
    return list(log.astype(object).where(log.notna(), None).to_dict("records"))


_CURVES = (("precision", "first"), ("recall", "second"), ("F1", "third"))


# The title of a chart, its drawing, and a remark.
_Chart = tuple[str, Markup, str]


def _calibration_charts(metrics: Metrics) -> list[_Chart]:
    of_all = {"all labels": metrics["overall"], **metrics["labels"]}
    return [
        (
            name,
            reliability_chart(f"Reliability of {name}", one["reliability"]),
            f"error {page.formatted(one['expected_calibration_error'])}",
        )
        for name, one in of_all.items()
    ]


def _threshold_chart(name: str, one: Metrics) -> _Chart:
    lines = [
        Line(curve, [(row[0], row[at]) for row in one["curve"] if row[at] is not None], style)
        for at, (curve, style) in enumerate(_CURVES, start=1)
    ]
    title = f"Precision, recall and F1 of {name}"
    chart = line_chart(title, lines, Axis("threshold"), Axis(""), one["threshold"])
    return name, chart, f"threshold {one['threshold']:.2f}"


def _epochs(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The epochs of fine-tuning, or all if there are none."""
    return [row for row in log if row["stage"] == "fine_tuning"] or log


def _training_charts(log: list[dict[str, Any]]) -> list[_Chart]:
    epochs = _epochs(log)
    if not epochs:
        return []
    last = max(row["epoch"] for row in epochs) or 1
    charts = []
    for measure in ("loss", "accuracy"):
        lines = [
            Line(f"fit {fold:.0f}, {name}", points, style)
            for name, column, style in (
                ("held out", f"held_out_{measure}", "second faint"),
                ("trained on", measure, "first faint"),
            )
            for fold in sorted({row["fold"] for row in epochs})
            if (
                points := [
                    (row["epoch"], row[column])
                    for row in epochs
                    if row["fold"] == fold and row[column] is not None
                ]
            )
        ]
        values = [value for line in lines for _, value in line.points]
        low, high = min(values), max(values)
        margin = max((high - low) * 0.08, 0.01)
        top = high + margin if measure == "loss" else min(high + margin, 1)
        across, up = Axis("epoch", 0, last, int(min(last, 8))), Axis("", max(low - margin, 0), top)
        charts.append((measure, line_chart(f"{measure} by epoch", lines, across, up), ""))
    return charts
