"""Scores the same pictures by two models and writes where they differ, as a report and as JSON."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.artifact.card import Card
from piqueue.commands.terminal import CommandFailed, run
from scripts.workshop.evaluate import add_picture_arguments, write_report
from scripts.workshop.reports.figures import Figures, judge
from scripts.workshop.reports.page import (
    gallery,
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

FLIPS_SHOWN = 36

_EXAMPLES = """\
examples:
  piqueue compare scenes@1 scenes@2 labels.csv --split val
  piqueue compare scenes@1 out/scenes/2 photos/ -o compared.html     no labels are needed

Beside the report is the same as JSON, under the same name with .json."""


@dataclass(frozen=True)
class Side:
    """One of two models, and its scores (n, n_labels) of the labels that both have."""

    card: Card
    scores: NDArray[np.float64]
    thresholds: list[float]

    @property
    def answers(self) -> NDArray[np.bool_]:
        """Which labels it gives."""
        return self.scores >= np.asarray(self.thresholds)

    def __str__(self) -> str:
        return f"{self.card.name}@{self.card.version}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue compare`; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="piqueue compare",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", help="NAME, NAME@VERSION, or the folder of an artifact")
    parser.add_argument("b", help="the model it is compared with")
    add_picture_arguments(parser, "comparison.html")
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: _compare(options))


def _compare(options: argparse.Namespace) -> int:
    settings = load_settings()
    predictors = [find_model(one, settings, options.engine)[0] for one in (options.a, options.b)]
    first, second = (predictor.card for predictor in predictors)
    labels = [label for label in first.labels if label in second.labels]
    if not labels:
        raise CommandFailed(f"{options.a} and {options.b} have no label in common")
    pictures = find_pictures(options.pictures, labels, options.images, options.split)
    if pictures.truth is not None:
        labels = list(pictures.labels)
    scored = [score(predictor, pictures, settings) for predictor in predictors]
    kept = np.intersect1d(scored[0].kept, scored[1].kept)
    one, other = (
        _side(predictor.card, result, labels, kept)
        for predictor, result in zip(predictors, scored, strict=True)
    )
    truth = None if pictures.truth is None else pictures.truth[kept]
    flips = find_flips(one, other)
    figures = {
        "a": _named(one.card),
        "b": _named(other.card),
        "source": options.pictures.name + (f", split {options.split}" if options.split else ""),
        "pictures": len(kept),
        "agreement": round(float((one.answers == other.answers).mean()), 4),
        "pictures_that_agree": round(float((one.answers == other.answers).all(axis=1).mean()), 4),
        "labels": _by_label(one, other, labels, truth),
        "not_compared": sorted({*first.labels, *second.labels} - set(labels)),
        "refused": scored[0].refused | scored[1].refused,
        "flips": [
            {
                "name": pictures.names[kept[row]],
                "label": labels[column],
                "a": round(float(one.scores[row, column]), 5),
                "b": round(float(other.scores[row, column]), 5),
                "given_by": "a" if one.answers[row, column] else "b",
                "truth": None if truth is None else bool(truth[row, column]),
            }
            for row, column in flips
        ],
    }
    sizes = dict(zip(scored[0].kept.tolist(), scored[0].sizes, strict=True))
    cards = [
        _flip_card(pictures, int(kept[row]), sizes[int(kept[row])], flip, (one, other))
        for (row, _), flip in zip(flips[:FLIPS_SHOWN], figures["flips"], strict=False)
    ]
    write_report(options.output, figures, _page(figures, (one, other), cards))
    print(
        f"{one} and {other} agree on {figures['agreement']:.1%} of the answers "
        f"about {len(kept)} pictures; {len(flips)} differ"
    )
    return 0


def _side(card: Card, scored: Scored, labels: Sequence[str], kept: NDArray[np.intp]) -> Side:
    places = [card.labels.index(label) for label in labels]
    rows = np.searchsorted(scored.kept, kept)
    return Side(card, scored.scores[rows][:, places], [card.thresholds[at] for at in places])


def find_flips(one: Side, other: Side) -> list[tuple[int, int]]:
    """The answers that differ as (row, column), those whose scores differ most first."""
    flips = np.argwhere(one.answers != other.answers)
    moved = abs(one.scores - other.scores)
    order = np.argsort([-moved[row, at] for row, at in flips], kind="stable")
    return [(int(row), int(at)) for row, at in flips[order]]


def _by_label(
    one: Side, other: Side, labels: Sequence[str], truth: NDArray[np.bool_] | None
) -> dict[str, Figures]:
    judged = [
        None if truth is None else judge(truth, side.scores, side.thresholds, labels)["labels"]
        for side in (one, other)
    ]
    found = {}
    for at, label in enumerate(labels):
        before, after = one.answers[:, at], other.answers[:, at]
        figures: dict[str, Any] = {
            "agreement": round(float((before == after).mean()), 4),
            "mean_score_change": round(float((other.scores[:, at] - one.scores[:, at]).mean()), 4),
            "yes_a": int(before.sum()),
            "yes_b": int(after.sum()),
        }
        if truth is not None:
            figures["mended"] = int(((before != truth[:, at]) & (after == truth[:, at])).sum())
            figures["broken"] = int(((before == truth[:, at]) & (after != truth[:, at])).sum())
            for name, side in zip("ab", judged, strict=True):
                assert side is not None
                for measure in ("average_precision", "f1", "expected_calibration_error"):
                    figures[f"{measure}_{name}"] = side[label][measure]
        found[label] = figures
    return found


def _named(card: Card) -> dict[str, str]:
    return {"name": card.name, "version": card.version, "sha256": card.sha256}


def _flip_card(
    pictures: Pictures,
    index: int,
    size: tuple[int, int],
    flip: dict[str, Any],
    sides: tuple[Side, Side],
) -> str:
    facts = [f"{flip['label']}: {flip['a']:.2f} by {sides[0]}, {flip['b']:.2f} by {sides[1]}"]
    if flip["truth"] is not None:
        right = sides[(flip["given_by"] == "b") == flip["truth"]]
        labelled = "labelled" if flip["truth"] else "not labelled"
        facts.append(f"{labelled} {flip['label']}: {right} is right")
    return picture_card(pictures.paths[index], size, pictures.names[index], facts)


def _page(figures: Figures, sides: tuple[Side, Side], cards: Sequence[str]) -> str:
    labels, flips = figures["labels"], figures["flips"]
    has_truth = any("mended" in one for one in labels.values())
    told = [
        ("Same answers", f"{figures['agreement']:.1%}", f"about {len(labels)} labels"),
        (
            "Pictures that agree",
            f"{figures['pictures_that_agree']:.1%}",
            f"in all labels, of {figures['pictures']}",
        ),
        ("Answers that differ", str(len(flips)), "below with their pictures"),
    ]
    if has_truth:
        mended, broken = (
            sum(one[name] for one in labels.values()) for name in ("mended", "broken")
        )
        told.append(("Mended", str(mended), f"wrong by {sides[0]}, right by {sides[1]}"))
        told.append(("Broken", str(broken), f"right by {sides[0]}, wrong by {sides[1]}"))
    parts = [
        tiles(told),
        section(
            "Label by label",
            f"How the answers change from {sides[0]} to {sides[1]}, each at its own thresholds.",
            table(
                [
                    "label",
                    "same answers",
                    f"given by {sides[0]}",
                    f"by {sides[1]}",
                    "mean score moves by",
                ],
                [
                    [
                        label,
                        f"{one['agreement']:.1%}",
                        str(one["yes_a"]),
                        str(one["yes_b"]),
                        f"{one['mean_score_change']:+.3f}",
                    ]
                    for label, one in labels.items()
                ],
            ),
        ),
    ]
    if has_truth:
        parts.append(_quality_section(labels))
    if cards:
        more = len(flips) > len(cards)
        first = f"The {len(cards)} of {len(flips)} whose" if more else "First those whose"
        parts.append(section("Answers that differ", f"{first} scores differ most.", gallery(cards)))
    parts += not_scored(figures["refused"])
    return page(
        f"{sides[0]} and {sides[1]}",
        f"{figures['pictures']} pictures of {figures['source']}",
        parts,
    )


def _quality_section(labels: dict[str, Figures]) -> str:
    measures = ("average_precision", "f1", "expected_calibration_error")
    rows = []
    for label, one in labels.items():
        row = [label, str(one["mended"]), str(one["broken"])]
        for measure in measures:
            before, after = one[f"{measure}_a"], one[f"{measure}_b"]
            change = None if before is None or after is None else after - before
            row.append(f"{shown(before)} → {shown(after)}")
            row.append("–" if change is None else f"{change:+.3f}")
        rows.append(row)
    names = ["average precision", "", "F1", "", "calibration error", ""]
    return section(
        "How good they are",
        "Mended and broken answers, and the figures before and after.",
        table(["label", "mended", "broken", *names], rows),
    )


if __name__ == "__main__":
    sys.exit(main())
