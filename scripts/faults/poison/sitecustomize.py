"""Makes a worker die, as a decoder's crash would make it, at a payload that holds POISON."""

import hashlib
import os
import signal

_sha256 = hashlib.sha256


def _deadly(payload: bytes = b"", **options: bool) -> "hashlib._Hash":
    if b"POISON" in payload:
        os.kill(os.getpid(), signal.SIGKILL)
    return _sha256(payload, **options)


hashlib.sha256 = _deadly  # type: ignore[assignment]
