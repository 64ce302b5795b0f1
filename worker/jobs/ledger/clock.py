"""Scripts that know the time of the ledger, which never steps back."""

from pathlib import Path
from typing import Any

from redis import Redis

# What clock.lua adds to the clock of Redis: a key and a field of it.
OFFSET = ("piqueue:clock", "offset")
_CLOCK = Path(__file__).with_name("clock.lua").read_text()


def script(redis: Redis, lua: str, flags: str = "allow-oom") -> Any:
    """Register a script that can call `now_ms` and `wall_ms` of clock.lua.

    Without the flag `allow-oom` a full Redis refuses it.
    """
    return redis.register_script(f"#!lua flags={flags}\n{_CLOCK}\n{lua}")
