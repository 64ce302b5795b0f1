"""Progress on standard error: a bar on a terminal, else a line every few seconds."""

import sys
import time
from typing import Self

from tqdm import tqdm

_LINE_EVERY_S = 5.0
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Show progress and notes in this process, or not."""
    global _quiet
    _quiet = quiet


class Progress:
    """Shows a count that grows from `done` to `total`, its rate and the estimated time left."""

    def __init__(self, title: str, total: int, done: int = 0, unit: str = "pictures") -> None:
        self._title, self._total, self._first, self._unit = title, total, done, f" {unit}"
        self._started = self._shown_at = time.monotonic()
        self._shown = -1
        self._bar = (
            tqdm(total=total, initial=done, desc=title, unit=self._unit, dynamic_ncols=True)
            if sys.stderr.isatty() and not _quiet
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int) -> None:
        """Show that `done` of the total are done."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            self._bar.refresh()
            return
        now = time.monotonic()
        complete = done == self._total and done != self._shown
        if (complete or now - self._shown_at > _LINE_EVERY_S) and not _quiet:
            self._shown, self._shown_at = done, now
            line = tqdm.format_meter(
                done,
                self._total,
                now - self._started,
                ncols=0,
                prefix=self._title,
                unit=self._unit,
                initial=self._first,
            )
            print(line, file=sys.stderr, flush=True)


def tell(line: str) -> None:
    """Print a line to standard error, above the bar if there is one."""
    tqdm.write(line, file=sys.stderr)


def note(line: str) -> None:
    """Print a line that `--quiet` leaves out."""
    if not _quiet:
        tell(line)
