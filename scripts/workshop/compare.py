"""Compares the predictions of two models, and writes a report as HTML and as JSON."""

import argparse
from collections.abc import Sequence
from typing import Any

from model.training.bootstrap import interval
from piqueue.commands.terminal import CommandFailed, run
from scripts.commands.parser import command_parser
from scripts.workshop.reports import page, scoring
from scripts.workshop.reports.metrics import Metrics, Truth, draws_of, evaluate_scores, share
from worker.jobs.settings import load_settings

CHANGES_SHOWN = 36
_MEASURES = ("average_precision", "f1", "expected_calibration_error")

_EXAMPLES = """\
examples:
  piqueue compare scenes@5 models/scenes/6 labels.csv --split val
  piqueue compare scenes@5 models/scenes/6 photos/ -o comparison.html     without labels

A file with the same name and the suffix .json has the same metrics as JSON."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue compare` and return its exit code."""
    parser = command_parser("compare", __doc__, _EXAMPLES)
    parser.add_argument("a", help=scoring.MODEL_HELP)
    parser.add_argument("b", help="the model to compare it with")
    scoring.add_picture_options(parser, "comparison.html")
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: _compare(options))


def _compare(options: argparse.Namespace) -> int:
    settings = load_settings()
    predictors = [
        scoring.find_model(one, settings, options.engine)[0] for one in (options.a, options.b)
    ]
    known, other_known = (predictor.card.labels for predictor in predictors)
    labels = [label for label in known if label in other_known]
    if not labels:
        raise CommandFailed(
            f"{options.a} and {options.b} have no label in common: give two models that have"
        )
    pictures = scoring.find_pictures(options, labels)
    if pictures.truth is not None:
        labels = list(pictures.labels)
    before = scoring.score(predictors[0], pictures, labels, settings)
    after = scoring.score(predictors[1], before.pictures, labels, settings)
    before = before.select(after.rows)  # only the pictures that both models have scored
    truth = after.pictures.truth
    same = before.predicted == after.predicted
    changes = scoring.ranked(~same, abs(before.scores - after.scores))
    figures = [
        evaluate_scores(truth, scored.scores, scored.thresholds, scored.labels)
        for scored in (before, after)
        if truth is not None
    ]
    metrics: Metrics = {
        "a": before.model,
        "b": after.model,
        "source": pictures.source,
        "pictures": len(same),
        "agreement": share(same),
        "pictures_that_agree": share(same.all(axis=1)),
        "changes": None if truth is None else _changes(before, after, truth, figures),
        "labels": _by_label(before, after, truth, figures),
        "not_compared": sorted({*known, *other_known} - set(labels)),
        "rejected": before.rejected | after.rejected,
        "changed_predictions": [
            {
                "name": after.pictures.names[row],
                "label": labels[column],
                "a": round(float(before.scores[row, column]), 5),
                "b": round(float(after.scores[row, column]), 5),
                "predicted_by": "a" if before.predicted[row, column] else "b",
                "truth": None if truth is None else bool(truth[row, column]),
            }
            for row, column in changes
        ],
    }
    cards = [
        _change_card(before, after, row, change)
        for (row, _), change in zip(
            changes[:CHANGES_SHOWN], metrics["changed_predictions"], strict=False
        )
    ]
    page.write_report(
        options.output, metrics, "comparison.html", a=f"{before}", b=f"{after}", cards=cards
    )
    print(
        f"{before} and {after} agree on {metrics['agreement']:.1%} of the predictions "
        f"for {len(same)} pictures; {len(changes)} differ"
    )
    return 0


def _changes(
    before: scoring.Scored, after: scoring.Scored, truth: Truth, figures: Sequence[Metrics]
) -> Metrics:
    """By how much the overall figures change, with 95 % intervals of the change."""
    old, new = (draws_of(truth, scored.scores, scored.thresholds) for scored in (before, after))
    old_figures, new_figures = (one["overall"] for one in figures)
    return {
        name: {
            "a": old_figures[name],
            "b": new_figures[name],
            "interval_95": interval(new[name] - old[name]),
        }
        for name in old
    }


def _by_label(
    before: scoring.Scored,
    after: scoring.Scored,
    truth: Truth | None,
    figures: Sequence[Metrics],
) -> dict[str, Metrics]:
    by_label: dict[str, Metrics] = {}
    for at, label in enumerate(before.labels):
        old, new = before.predicted[:, at], after.predicted[:, at]
        change = after.scores[:, at] - before.scores[:, at]
        by_label[label] = {
            "agreement": share(old == new),
            "mean_score_change": round(float(change.mean()), 4),
            "predicted_by_a": int(old.sum()),
            "predicted_by_b": int(new.sum()),
        }
        if truth is not None:
            real = truth[:, at]
            by_label[label]["fixed"] = int(((old != real) & (new == real)).sum())
            by_label[label]["broken"] = int(((old == real) & (new != real)).sum())
    for side, metrics in zip("ab", figures, strict=False):  # no figures without a truth
        for label, one in metrics["labels"].items():
            by_label[label] |= {f"{measure}_{side}": one[measure] for measure in _MEASURES}
    return by_label


def _change_card(
    before: scoring.Scored, after: scoring.Scored, row: int, change: dict[str, Any]
) -> tuple[str, str, Sequence[str]]:
    label, truth = change["label"], change["truth"]
    facts = [f"{label}: {change['a']:.2f} by {before}, {change['b']:.2f} by {after}"]
    if truth is not None:
        right = after if (change["predicted_by"] == "b") == truth else before
        facts.append(f"{'labelled' if truth else 'not labelled'} {label}: {right} is right")
    return page.card(after, row, facts)
