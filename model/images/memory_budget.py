"""The memory that all threads of a process may decode in, together."""

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# What glibc's mallopt calls the size from which on memory is given back as soon as it is freed.
_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 4_000_000


class MemoryBudget:
    """Lets threads in, first come first served, while what they take fits into `total_bytes`."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._free_bytes = total_bytes
        self._turn = threading.Lock()
        self._freed = threading.Condition()
        # Or each thread would keep what its largest picture took, up to 32 MB a block.
        free_at_once()

    @contextmanager
    def taking(self, size_bytes: int) -> Iterator[None]:
        """Wait until `size_bytes`, at most the total, are free, and hold them."""
        if size_bytes > self.total_bytes:
            raise ValueError(f"{size_bytes} bytes of {self.total_bytes} will never be free")
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._free_bytes >= size_bytes)
            self._free_bytes -= size_bytes
        try:
            yield
        finally:
            with self._freed:
                self._free_bytes += size_bytes
                self._freed.notify_all()


def free_at_once() -> None:
    """Have this process give large blocks back to the system as soon as they are freed."""
    with contextlib.suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
