"""Whether the scores of promoted models still are distributed as those of their validation set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log

from worker.jobs.ledger.score_days import Counts, ScoreDays
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.record import ModelRef

# A population stability index above this is called a significant change.
LARGEST_INDEX = 0.25
# A day with fewer scores says nothing: chance alone would give a large index.
LEAST_SCORES = 500
LEAST_SHARE = 0.005


@dataclass(frozen=True)
class ModelScores:
    """The scores of the current version of a model: in its card, and by day, the newest first."""

    model: ModelRef
    reference: Counts
    by_day: Mapping[str, Counts]

    @property
    def day(self) -> str | None:
        """The newest day with enough scores of a label, if there is one."""
        return next(
            (
                day
                for day, counts in self.by_day.items()
                if max(map(sum, counts.values())) >= LEAST_SCORES
            ),
            None,
        )

    @property
    def drift(self) -> dict[str, float]:
        """The population stability index of each label on `day`; empty without a reference."""
        if self.day is None:
            return {}
        return {
            label: stability_index(self.reference[label], counts)
            for label, counts in self.by_day[self.day].items()
            if sum(counts) >= LEAST_SCORES and any(self.reference.get(label, ()))
        }


def current_scores(catalog: ModelCatalog, days: ScoreDays) -> Iterator[ModelScores]:
    """The scores of each model's current version, by name.

    Raises:
        LedgerUnavailable: Redis does not answer.
        StorageUnavailable: the registry does not.
    """
    refs = [catalog.resolve(name).ref for name in sorted({card.name for card in catalog.all()})]
    found = days.read(ref.key for ref in refs)
    for ref in refs:
        yield ModelScores(ref, catalog.score_counts(ref), found[ref.key])


def stability_index(reference: Sequence[int], counts: Sequence[int]) -> float:
    """The population stability index of two histograms with the same bins; 0 if they are alike.

    A share below `LEAST_SHARE` counts as that much, so that an empty bin does not make it infinite.
    """
    then, now = (
        [max(one / sum(counted), LEAST_SHARE) for one in counted] for counted in (reference, counts)
    )
    return sum(
        (after - before) * log(after / before) for before, after in zip(then, now, strict=True)
    )
