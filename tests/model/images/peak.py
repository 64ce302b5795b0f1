"""Prints by how many bytes this process and its sandboxes grow while threads decode pictures."""

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from model.images.decode import decode
from model.images.memory_budget import MemoryBudget

# A sandbox before its first picture.
SANDBOX_BYTES = 40_000_000
_PAGE_BYTES = 4096


@dataclass
class Peak:
    """The most bytes that a process and its sandboxes have used together."""

    total_bytes: int = 0
    without_sandboxes_bytes: int = 0


def used_bytes(pid: int | str) -> tuple[int, int]:
    """The resident size of a process and its sandboxes, and how many sandboxes there are."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = {child for task in tasks for child in task.read_text().split() if _is_sandbox(child)}
    total = 0
    for one in {str(pid), *children}:
        with contextlib.suppress(OSError, IndexError):  # it has just ended
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE_BYTES
    return total, len(children)


def _is_sandbox(pid: str) -> bool:
    # A child that does not run its program yet shares the memory of its parent.
    with contextlib.suppress(OSError):
        return b"sandbox_child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@contextmanager
def observed(pid: int | str) -> Iterator[Peak]:
    """Observe a process and its sandboxes for the duration of the context."""
    peak, done = Peak(), threading.Event()

    def observe() -> None:
        while not done.wait(0.002):
            total, sandboxes = used_bytes(pid)
            rest = total - SANDBOX_BYTES * sandboxes
            peak.total_bytes = max(peak.total_bytes, total)
            peak.without_sandboxes_bytes = max(peak.without_sandboxes_bytes, rest)

    observer = threading.Thread(target=observe)
    observer.start()
    try:
        yield peak
    finally:
        done.set()
        observer.join()


def main(arguments: Sequence[str]) -> None:
    """Decode each file in a thread of its own, within a memory budget in bytes."""
    payloads = [Path(path).read_bytes() for path in arguments[1:]]
    memory = MemoryBudget(int(arguments[0]))
    before, _ = used_bytes("self")
    with observed("self") as peak, ThreadPoolExecutor(len(payloads)) as threads:
        list(threads.map(lambda payload: decode(payload, memory=memory), payloads))
    print(peak.without_sandboxes_bytes - before)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
