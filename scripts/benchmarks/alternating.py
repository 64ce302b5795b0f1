"""Things to compare are measured in turn, so that what else the machine does hits all alike."""

from collections.abc import Callable, Sequence


def in_turn(
    first: Callable[[], float], second: Callable[[], float], rounds: int
) -> list[tuple[float, float]]:
    """Call both, one after the other, `rounds` times; gives the pairs."""
    return [(first(), second()) for _ in range(rounds)]


def ratios(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Give first / second of each pair."""
    return [first / second for first, second in pairs]


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value that `share` of all are not above."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
