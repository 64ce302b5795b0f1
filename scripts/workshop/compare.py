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
  piqueue compare scenes@2 models/scenes/3 labels.csv --split val
  piqueue compare scenes@2 models/scenes/3 photos/ -o comparison.html     without labels

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
    metrics: Metrics = {
        "a": before.model,
        "b": after.model,
        "source": pictures.source,
        "pictures": len(same),
        "agreement": share(same),
        "pictures_that_agree": share(same.all(axis=1)),
        "changes": None if truth is None else _changes(before, after, truth),
        "labels": _by_label(before, after, truth),
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
    page.write_report(options.output, metrics, _page(metrics, f"{before}", f"{after}", cards))
    print(
        f"{before} and {after} agree on {metrics['agreement']:.1%} of the predictions "
        f"for {len(same)} pictures; {len(changes)} differ"
    )
    return 0


def _changes(before: scoring.Scored, after: scoring.Scored, truth: Truth) -> Metrics:
    """By how much the overall figures change, with 95 % intervals of the change."""
    old, new = (draws_of(truth, scored.scores, scored.thresholds) for scored in (before, after))
    old_figures, new_figures = (
        evaluate_scores(truth, scored.scores, scored.thresholds, scored.labels)["overall"]
        for scored in (before, after)
    )
    return {
        name: {
            "a": old_figures[name],
            "b": new_figures[name],
            "interval_95": interval(new[name] - old[name]),
        }
        for name in old
    }


def _by_label(
    before: scoring.Scored, after: scoring.Scored, truth: Truth | None
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
    if truth is None:
        return by_label
    for side, scored in (("a", before), ("b", after)):
        metrics = evaluate_scores(truth, scored.scores, scored.thresholds, scored.labels)
        for label, one in metrics["labels"].items():
            by_label[label] |= {f"{measure}_{side}": one[measure] for measure in _MEASURES}
    return by_label


def _change_card(
    before: scoring.Scored, after: scoring.Scored, row: int, change: dict[str, Any]
) -> str:
    label, truth = change["label"], change["truth"]
    facts = [f"{label}: {change['a']:.2f} by {before}, {change['b']:.2f} by {after}"]
    if truth is not None:
        right = after if (change["predicted_by"] == "b") == truth else before
        facts.append(f"{'labelled' if truth else 'not labelled'} {label}: {right} is right")
    return page.picture_card(after, row, facts)


def _page(metrics: Metrics, a: str, b: str, cards: Sequence[str]) -> str:
    labels, change_count = metrics["labels"], len(metrics["changed_predictions"])
    has_truth = any("fixed" in one for one in labels.values())
    agreeing, of_all = f"{metrics['pictures_that_agree']:.1%}", f"of {metrics['pictures']}"
    summary = [
        ("Agreement", f"{metrics['agreement']:.1%}", f"of the predictions of {len(labels)} labels"),
        ("Pictures that agree", agreeing, f"in all labels, {of_all}"),
        ("Changed predictions", str(change_count), "with their pictures below"),
    ]
    if has_truth:
        fixed, broken = (sum(one[name] for one in labels.values()) for name in ("fixed", "broken"))
        summary.append(("Fixed", str(fixed), f"wrong by {a}, right by {b}"))
        summary.append(("Broken", str(broken), f"right by {a}, wrong by {b}"))
    header = ["label", "agreement", f"predicted by {a}", f"by {b}", "mean score change"]
    rows = []
    for label, one in labels.items():
        counts = (str(one[f"predicted_by_{side}"]) for side in "ab")
        change = f"{one['mean_score_change']:+.3f}"
        rows.append([label, f"{one['agreement']:.1%}", *counts, change])
    about = f"How the predictions change from {a} to {b}, each at its own thresholds."
    parts = [page.tiles(summary), page.section("Changes by label", about, page.table(header, rows))]
    if has_truth:
        parts.append(_change_section(metrics["changes"]))
        parts.append(_quality_section(labels))
    if cards:
        about = f"{len(cards)} of {change_count}, those with the largest change of the score first."
        parts.append(page.section("Changed predictions", about, page.gallery(cards)))
    parts += page.not_scored(metrics["rejected"])
    return page.document(
        f"{a} and {b}", f"{metrics['pictures']} pictures of {metrics['source']}", parts
    )


def _change_section(changes: dict[str, Metrics]) -> str:
    rows = []
    for name, one in changes.items():
        change = None if one["a"] is None or one["b"] is None else one["b"] - one["a"]
        ends = one["interval_95"]
        row = [name.replace("_", " "), page.formatted(one["a"]), page.formatted(one["b"])]
        row.append("–" if change is None else f"{change:+.3f}")
        row.append("–" if ends is None else f"{ends[0]:+.3f} to {ends[1]:+.3f}")
        rows.append(row)
    return page.section(
        "Change of the figures",
        "Of all labels together. The last column is a 95 % confidence interval of the change: if "
        "it contains 0, these pictures do not show which model is better.",
        page.table(["figure", "before", "after", "change", "interval of the change"], rows),
    )


def _quality_section(labels: dict[str, Metrics]) -> str:
    rows = []
    for label, one in labels.items():
        row = [label, str(one["fixed"]), str(one["broken"])]
        for measure in _MEASURES:
            before, after = one[f"{measure}_a"], one[f"{measure}_b"]
            change = None if before is None or after is None else after - before
            row.append(f"{page.formatted(before)} → {page.formatted(after)}")
            row.append("–" if change is None else f"{change:+.3f}")
        rows.append(row)
    names = ["average precision", "", "F1", "", "calibration error", ""]
    return page.section(
        "Metrics by label",
        "The numbers of fixed and broken predictions, and the metrics before and after.",
        page.table(["label", "fixed", "broken", *names], rows),
    )
