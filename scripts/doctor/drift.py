"""Checks whether the scores of promoted models differ from those of their validation sets."""

from collections.abc import Iterator

from scripts.doctor.check_result import CheckResult, ok, problem, warning
from scripts.doctor.redis import open_redis
from worker.jobs.drift import LARGEST_INDEX, LEAST_SCORES, ModelScores, current_scores
from worker.jobs.errors import LedgerUnavailable, PiqueueError
from worker.jobs.ledger.score_days import DAYS, ScoreDays
from worker.jobs.models.configured import open_catalog
from worker.jobs.settings import Settings


def check_drift(settings: Settings) -> Iterator[CheckResult]:
    """Compare the scores of each model's current version with those in its card."""
    try:
        with open_redis(settings) as client:
            scores = list(current_scores(open_catalog(settings), ScoreDays(client)))
    except LedgerUnavailable:
        yield problem(
            "drift", "not known: Redis does not answer", "solve the problem of Redis first"
        )
        return
    except PiqueueError as error:
        yield problem("drift", f"not known: {error}", "correct the registry")
        return
    known = [one for one in scores if one.by_day]
    if not known:
        yield ok("drift", f"no scores in the last {DAYS} days")
    for one in known:
        yield _result(one)


def _result(scores: ModelScores) -> CheckResult:
    name = scores.model.text
    if not scores.reference:
        return ok("drift", f"{name}: no reference, as its card has no score_counts")
    if scores.day is None:
        return ok(
            "drift",
            f"{name}: too few scores to say, fewer than {LEAST_SCORES} a day in {DAYS} days",
        )
    drift = scores.drift
    parted = {label: index for label, index in drift.items() if index > LARGEST_INDEX}
    shown = parted or dict([max(drift.items(), key=lambda one: one[1])])
    indexes = ", ".join(f"{label} {index:.2f}" for label, index in sorted(shown.items()))
    text = f"{name} on {scores.day}: stability index {indexes}"
    if not parted:
        return ok("drift", f"{text} at most, of {LARGEST_INDEX} allowed")
    return warning(
        "drift",
        f"{text}, more than {LARGEST_INDEX}: the scores are not as in the validation set",
        "look at new pictures of these labels, and measure the model on some that you label "
        "(`piqueue evaluate`); docs/metrics.md says what the index means",
    )
