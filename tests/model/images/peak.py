"""Prints the peak growth of this process in bytes while threads decode pictures."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from model.images.decode import decode
from model.images.memory_budget import MemoryBudget


def peak_bytes(pid: int | str = "self") -> int:
    """The peak resident size of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main(arguments: Sequence[str]) -> None:
    """Decode each file in a thread of its own, within a memory budget in bytes."""
    payloads = [Path(path).read_bytes() for path in arguments[1:]]
    before = peak_bytes()
    memory = MemoryBudget(int(arguments[0]))
    with ThreadPoolExecutor(len(payloads)) as threads:
        list(threads.map(lambda payload: decode(payload, memory=memory), payloads))
    print(peak_bytes() - before)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
