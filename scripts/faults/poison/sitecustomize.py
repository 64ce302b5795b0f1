"""Kills a worker, as a crash of a decoder would, at a payload that contains POISON."""

import hashlib
import os
import signal

_sha256 = hashlib.sha256


def _sha256_or_die(payload: bytes = b"", **options: bool) -> "hashlib._Hash":
    if b"POISON" in payload:
        os.kill(os.getpid(), signal.SIGKILL)
    return _sha256(payload, **options)


hashlib.sha256 = _sha256_or_die  # type: ignore[assignment]
