"""How the CPU time of a parser grows with its input."""

import gc
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

# Twice the input may take this much longer.
MOST_FOR_DOUBLE = 2.5
# Inputs are compared with others of this many times their length, so that noise matters less.
TIMES = 4
MOST_FOR_TIMES = MOST_FOR_DOUBLE ** math.log2(TIMES)
# The CPU time of the longer input, so that constant costs are a small part of it; one that may not
# be long enough for that, and takes less than `NEGLIGIBLE_S`, is good.
ENOUGH_S, NEGLIGIBLE_S = 0.03, 0.02
MIN_SIZE = 128
ATTEMPTS = 5


@dataclass(frozen=True)
class Parser:
    """A parser of bytes that strangers send, and what it is tried with.

    Each input begins with one of `begins`, repeats one of `units`, and ends with one of `ends`. It
    has at most `most` bytes, the limit of the service or what is enough to see how it grows.
    """

    read: Callable[[bytes], object]
    units: tuple[bytes, ...]
    begins: tuple[bytes, ...] = (b"",)
    ends: tuple[bytes, ...] = (b"",)
    most: int = 2_000_000

    def inputs(self) -> Iterator[tuple[str, Callable[[int], bytes]]]:
        """Give the inputs, each as a name and a function of the length."""
        for begin, unit, end in product(self.begins, self.units, self.ends):

            def make(size: int, begin: bytes = begin, unit: bytes = unit, end: bytes = end) -> Any:
                return begin + unit * max(1, size // len(unit)) + end

            yield f"{begin[-40:]!r} {unit[:40]!r}* {end[:40]!r}", make


def too_fast_growth(
    read: Callable[[Any], object], make: Callable[[int], Any], most: int
) -> str | None:
    """Say how the CPU time of `read` grows with its input; None if in proportion to it.

    The best of several measurements counts, and only an input that is bad each time.
    """
    size = MIN_SIZE
    while (took_s := _cpu_s(read, make(TIMES * size))) < ENOUGH_S and 2 * TIMES * size <= most:
        size *= 2
    if took_s < NEGLIGIBLE_S:
        return None
    growths = []
    for attempt in range(ATTEMPTS):
        small, large = make(size), make(TIMES * size)
        small_s, large_s = (
            min(_cpu_s(read, value) for _ in range(1 + attempt)) for value in (small, large)
        )
        growths.append(large_s / small_s)
        if growths[-1] <= MOST_FOR_TIMES:
            return None
        # A step, as beyond the size of a buffer, is seen at one size, growth at all.
        if 2 * TIMES * size <= most:
            size *= 2
    listed = ", ".join(f"{growth:.1f}" for growth in growths)
    return f"up to {len(large)} bytes take {listed} times as long as a quarter of them"


def _cpu_s(read: Callable[[Any], object], value: Any) -> float:
    """The CPU time of this thread, which other processes do not prolong by much."""
    gc.disable()
    try:
        began = time.thread_time()
        read(value)
        return time.thread_time() - began
    finally:
        gc.enable()
