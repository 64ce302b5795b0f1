"""How far along something is, on stderr: a bar on a terminal, else a line now and then."""

import sys
import time
from typing import Self

from tqdm import tqdm

_LINE_EVERY_S = 5.0


class Progress:
    """Shows a count that grows to `total`, with the rate and the time left.

    `done` is where it starts; the rate is that of what comes after.
    """

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._first = what, total, done
        self._started = self._shown_at = time.monotonic()
        self._shown = -1
        self._bar = (
            tqdm(total=total, initial=done, desc=what, unit=" pictures", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int) -> None:
        """Show that `done` of all are done."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            self._bar.refresh()
            return
        now = time.monotonic()
        over = done == self._total and done != self._shown
        if over or now - self._shown_at > _LINE_EVERY_S:
            self._shown, self._shown_at = done, now
            line = tqdm.format_meter(
                done,
                self._total,
                now - self._started,
                ncols=0,
                prefix=self._what,
                unit=" pictures",
                initial=self._first,
            )
            print(line, file=sys.stderr, flush=True)


def tell(line: str) -> None:
    """Print a line to stderr, above the bar if there is one."""
    tqdm.write(line, file=sys.stderr)
