"""Evaluates a model on labelled pictures, and writes a report as HTML and as JSON."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas

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
  piqueue evaluate model/bundled/scenes/2 labels.csv --images photos -o scenes-2.html
  piqueue evaluate scenes@2 photos/           with photos/beach/*.jpg, photos/city/*.jpg, …

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
    cards = [_wrong_card(scored, truth, *cell) for cell in wrong[:WRONG_SHOWN]]
    page.write_report(options.output, metrics, _page(metrics, cards))
    overall = metrics["overall"]
    figures = (
        f"{name.replace('expected_', '').replace('_', ' ')} {page.formatted(overall[name])} "
        f"({page.between(ends)})"
        for name, ends in overall["intervals_95"].items()
    )
    print(f"{scored} on {len(truth)} pictures: {', '.join(figures)}")
    return 0


def _wrong_card(scored: scoring.Scored, truth: Truth, row: int, column: int) -> str:
    label = scored.labels[column]
    kind = "false negative" if truth[row, column] else "false positive"
    score, threshold = scored.scores[row, column], scored.thresholds[column]
    labels = [name for name, is_one in zip(scored.labels, truth[row], strict=True) if is_one]
    facts = [
        f"{label}, {kind}: {score:.2f}, threshold {threshold:.2f}",
        f"labels: {', '.join(labels) or 'none'}",
    ]
    return page.picture_card(scored, row, facts)


def _training_log(path: Path) -> list[dict[str, float | str | None]]:
    """The log of the training run, empty if the artifact does not have it."""
    if not path.is_file():
        return []
    log = pandas.read_csv(path)
    return list(log.astype(object).where(log.notna(), None).to_dict("records"))


def _page(metrics: Metrics, wrong_cards: Sequence[str]) -> str:
    model, overall, labels = metrics["model"], metrics["overall"], metrics["labels"]
    by_chance = page.formatted(overall["expected_calibration_error_by_chance"])
    names = ("macro_average_precision", "macro_f1", "expected_calibration_error")
    precision, f1, calibration_error = (page.formatted(overall[name]) for name in names)
    rows = metrics["confusion"].items()
    confusion = {name or "none of them": list(counts.values()) for name, counts in rows}
    between = {name: page.between(ends) for name, ends in overall["intervals_95"].items()}
    precision_about = "mean of the labels; 1 is a perfect ranking"
    tiles = [
        (
            "Average precision",
            precision,
            f"{between['macro_average_precision']}; {precision_about}",
        ),
        ("F1", f1, "mean of the labels at their thresholds"),
        (
            "Accuracy",
            f"{overall['accuracy']:.1%}",
            f"{between['accuracy']}; of all predictions at the thresholds",
        ),
        ("Exact match", f"{overall['exact_match']:.1%}", f"of {metrics['pictures']} pictures"),
        (
            "Calibration error",
            calibration_error,
            f"{between['expected_calibration_error']}; perfect scores would have {by_chance}",
        ),
    ]
    parts = [
        page.tiles(tiles),
        page.section(
            "Uncertainty",
            "The ranges are 95 % confidence intervals: with other pictures of the same kind, the "
            "figures would probably be within them. They are calculated from 500 draws of as many "
            "of these pictures, with replacement (bootstrap).",
        ),
        page.section(
            "Metrics by label",
            "Precision is the share of correct predictions of a label. Recall is the share of its "
            "pictures for which it is predicted. Both are at the label's threshold.",
            _label_table(labels),
        ),
        page.section(
            "Calibration",
            "Of all pictures with a score of 0.8, 80 % should have the label: points should lie on "
            "the dashed line. Small points stand for few pictures and vary by chance; the bars "
            "show how many.",
            page.gallery(
                page.figure(
                    name,
                    reliability_chart(f"Reliability of {name}", one["reliability"]),
                    f"error {page.formatted(one['expected_calibration_error'])}",
                )
                for name, one in [("all labels", overall), *labels.items()]
            ),
        ),
        page.section(
            "Thresholds",
            "The metrics at other thresholds. The dotted line is the threshold of the model.",
            legend(list(_CURVES)),
            page.gallery(_threshold_chart(name, one) for name, one in labels.items()),
        ),
        page.section(
            "Confusion of labels",
            "How often the label of the column is wrongly predicted for pictures with the label of "
            "the row. On the diagonal: how often the label itself is missed.",
            page.heat_table(["pictures with", *labels], confusion),
        ),
    ]
    if metrics["training"]:
        parts.append(_training_section(metrics["training"]))
    if wrong_cards:
        about = (
            f"{len(wrong_cards)} of {len(metrics['wrong_predictions'])} wrong predictions, those "
            "with the largest errors first."
        )
        parts.append(page.section("Wrong predictions", about, page.gallery(wrong_cards)))
    parts += page.not_scored(metrics["rejected"])
    return page.document(
        f"{model['name']}@{model['version']}",
        f"{metrics['pictures']} pictures of {metrics['source']} · model {model['sha256'][:12]}",
        parts,
    )


_CURVES = (("precision", "first"), ("recall", "second"), ("F1", "third"))


def _threshold_chart(name: str, one: Metrics) -> str:
    lines = [
        Line(curve, [(row[0], row[at]) for row in one["curve"] if row[at] is not None], style)
        for at, (curve, style) in enumerate(_CURVES, start=1)
    ]
    title = f"Precision, recall and F1 of {name}"
    chart = line_chart(title, lines, Axis("threshold"), Axis(""), one["threshold"])
    return page.figure(name, chart, f"threshold {one['threshold']:.2f}")


def _label_table(labels: dict[str, Metrics]) -> str:
    columns = ["average_precision", "precision", "recall", "f1", "accuracy"]
    columns.append("expected_calibration_error")
    header = ["label", "pictures", "threshold", "average precision", "precision", "recall", "F1"]
    rows = []
    for name, one in labels.items():
        metrics = (page.formatted(one[column]) for column in columns)
        rows.append([name, str(one["positives"]), f"{one['threshold']:.2f}", *metrics])
    return page.table([*header, "accuracy", "calibration error"], rows)


def _training_section(log: list[dict[str, Any]]) -> str:
    epochs = [row for row in log if row["stage"] == "fine_tuning"] or log
    last = max(row["epoch"] for row in epochs) or 1
    waited = max(row["data_wait_share"] for row in epochs)
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
        charts.append(page.figure(measure, line_chart(f"{measure} by epoch", lines, across, up)))
    return page.section(
        "Training",
        "Fine-tuning, one line for each fit, on the augmented pictures and on the held-out fold. "
        f"Each epoch waited for data for at most {waited:.1%} of its time.",
        legend([("trained on", "first"), ("held out", "second")]),
        page.gallery(charts),
    )
