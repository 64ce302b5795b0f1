"""What a report says of the results of a job, collected in one pass and in constant memory."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappush, heapreplace, nlargest
from math import ceil

from api.results.histogram import BINS, bin_of
from worker.jobs.items import HIGH_SCORE, ItemSpec, RejectionCode, Timings
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.models.artifact import ModelCard

# The pictures of a label that are listed as the surest, and as many as the least sure.
LISTED_PICTURES = 6
# The failed items that are listed for each code.
LISTED_FAILURES = 5
# Scores below this are only counted: a model of a thousand labels gives hundreds of them.
LOW_SCORE = 1 / BINS


@dataclass(frozen=True)
class Picture:
    """An item that a report lists; `url` is None for uploads, and for URLs with a query, which may
    contain a secret.
    """

    index: int
    name: str
    url: str | None = None

    @classmethod
    def of(cls, index: int, spec: ItemSpec) -> "Picture":
        """Describe an item by the id that its caller gave it, or else by its URL or file name."""
        name = None if spec.id == str(index) else spec.id
        if spec.url is None:
            return cls(index, name or spec.filename or spec.id)
        if not spec.url.startswith(("http://", "https://")):
            return cls(index, name or spec.url)
        address, question_mark, _ = spec.url.partition("?")
        return cls(index, name or address.partition("://")[2], None if question_mark else address)


@dataclass
class LabelSummary:
    """What is counted of one label."""

    # Pictures by their score, in BINS equal bins.
    counts: list[int] = field(default_factory=lambda: [0] * BINS)
    predicted: int = 0
    # Heaps of (rank, minus the index, picture, score).
    surest: list[tuple[float, int, Picture, float]] = field(default_factory=list)
    unsure: list[tuple[float, int, Picture, float]] = field(default_factory=list)


@dataclass
class Failure:
    """The items that failed with one code, and some of them with what exactly happened."""

    count: int = 0
    examples: list[tuple[Picture, str]] = field(default_factory=list)


class Summary:
    """Counts results that are added one by one."""

    def __init__(self, model: ModelCard) -> None:
        self.labels = [LabelSummary() for _ in model.labels]
        self.scored = self.unlabelled = self.byte_count = 0
        # Pictures by pairs of labels that both are predicted, the lower index first.
        self.together: Counter[tuple[int, int]] = Counter()
        self.failures: dict[RejectionCode, Failure] = {}
        self.formats: Counter[str] = Counter()
        # Items by the milliseconds of each stage, to two digits.
        self.times_ms: dict[str, Counter[int]] = {
            name: Counter() for name in ("fetch", "decode", "infer")
        }
        self._thresholds = model.thresholds
        self._top_k = model.top_k
        self._low = min(LOW_SCORE, *model.thresholds)

    def add(self, stored: StoredResult) -> None:
        """Count a result."""
        result = stored.result
        if result.rejection is not None:
            failure = self.failures.setdefault(result.rejection.code, Failure())
            failure.count += 1
            if len(failure.examples) < LISTED_FAILURES:
                example = Picture.of(stored.index, stored.spec)
                failure.examples.append((example, result.rejection.detail))
        if result.image is not None:
            self.byte_count += result.image.byte_count
            self.formats[result.image.format or "unknown"] += 1
        if result.scores is None:
            return
        self.scored += 1
        if not result.cached:
            self._add_times(result.timings, fetched=stored.spec.url is not None)
        low, thresholds, scores = self._low, self._thresholds, result.scores
        at_all = range(len(scores)) if result.high is None or low < HIGH_SCORE else result.high
        high = [(scores[at], at) for at in at_all if scores[at] >= low]
        predicted = [pair for pair in high if pair[0] >= thresholds[pair[1]]]
        if self._top_k and len(predicted) > self._top_k:
            predicted = nlargest(self._top_k, predicted)
        for score, at in high:
            label = self.labels[at]
            label.counts[bin_of(score)] += 1
            _keep(label.unsure, -abs(score - thresholds[at]), score, stored)
        for score, at in predicted:
            label = self.labels[at]
            label.predicted += 1
            _keep(label.surest, score, score, stored)
        if not predicted:
            self.unlabelled += 1
        elif len(predicted) > 1:
            indexes = sorted(at for _, at in predicted)
            self.together.update(
                (first, second)
                for place, first in enumerate(indexes)
                for second in indexes[place + 1 :]
            )

    def _add_times(self, timings: Timings, *, fetched: bool) -> None:
        if fetched:
            self.times_ms["fetch"][_two_digits(timings.fetch_ms)] += 1
        self.times_ms["decode"][_two_digits(timings.decode_ms)] += 1
        self.times_ms["infer"][_two_digits(timings.infer_ms)] += 1

    def histogram(self, at: int) -> list[int]:
        """The pictures in each bin of the scores of a label, with those that were only counted."""
        _, *others = self.labels[at].counts
        return [self.scored - sum(others), *others]

    def surest(self, at: int) -> list[tuple[Picture, float]]:
        """The pictures with the highest scores of a label, if they have it."""
        return _ordered(self.labels[at].surest)

    def least_sure(self, at: int) -> list[tuple[Picture, float]]:
        """The pictures whose score of a label is nearest to its threshold, without the surest."""
        surest = self.surest(at)
        return [pair for pair in _ordered(self.labels[at].unsure) if pair not in surest]


def quantile(counts: Mapping[int, int], part: float) -> int:
    """The value that a part of all counted values do not exceed; 0 if nothing is counted."""
    rank = ceil(part * sum(counts.values()))
    for value in sorted(counts):
        rank -= counts[value]
        if rank <= 0:
            return value
    return 0


def _keep(
    heap: list[tuple[float, int, Picture, float]], rank: float, score: float, stored: StoredResult
) -> None:
    """Keep an item if it is among those of the highest ranks so far; of equal ones, the first."""
    if len(heap) < LISTED_PICTURES:
        heappush(heap, (rank, -stored.index, Picture.of(stored.index, stored.spec), score))
    elif rank > heap[0][0]:
        heapreplace(heap, (rank, -stored.index, Picture.of(stored.index, stored.spec), score))


def _ordered(heap: list[tuple[float, int, Picture, float]]) -> list[tuple[Picture, float]]:
    return [(picture, score) for _, _, picture, score in sorted(heap, reverse=True)]


def _two_digits(value: int) -> int:
    return value if value < 100 else round(value, 2 - len(str(value)))
