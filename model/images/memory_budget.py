"""The memory that all threads of a process together may use for decoding."""

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# A parameter of glibc's mallopt: blocks of at least this size are returned when they are freed.
_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 4_000_000


class MemoryBudget:
    """Admits threads, first come first served, while their reservations fit in `total_bytes`."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._free_bytes = total_bytes
        self._first_in_line = threading.Lock()
        self._released = threading.Condition()
        # Otherwise each thread would keep the memory of its largest picture, up to 32 MB a block.
        return_large_blocks()

    @contextmanager
    def reserve(self, size_bytes: int) -> Iterator[None]:
        """Wait until `size_bytes` are free, and hold them for the duration of the context.

        Raises:
            ValueError: `size_bytes` is more than the total.
        """
        if size_bytes > self.total_bytes:
            raise ValueError(f"cannot reserve {size_bytes} bytes of {self.total_bytes}")
        with self._first_in_line, self._released:
            self._released.wait_for(lambda: self._free_bytes >= size_bytes)
            self._free_bytes -= size_bytes
        try:
            yield
        finally:
            with self._released:
                self._free_bytes += size_bytes
                self._released.notify_all()


def return_large_blocks() -> None:
    """Make malloc return large blocks to the system as soon as they are freed."""
    with contextlib.suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
