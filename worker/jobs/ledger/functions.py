"""Functions in Redis: the atomic steps of the ledger, in Lua."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

# What base.lua adds to the clock of Redis: a key and a field of it.
OFFSET = ("piqueue:clock", "offset")
_BASE = Path(__file__).with_name("base.lua").read_text()


class Library:
    """Functions of one Lua file, which may call what base.lua offers.

    Redis keeps them as it keeps data: in its files, and on its replicas. Their names end with a
    hash of the code, so that two versions of Piqueue may use the same server.
    """

    def __init__(self, redis: Redis, name: str, lua: str) -> None:
        self._redis = redis
        self._hash = hashlib.sha256(f"{_BASE}{lua}".encode()).hexdigest()[:8]
        head = f"#!lua name=piqueue_{name}_{self._hash}\nlocal HASH = '{self._hash}'"
        self._code = f"{head}\n{_BASE}\n{lua}"

    def call(
        self, function: str, args: Sequence[str | bytes | float], keys: Sequence[str] = ()
    ) -> Any:
        """Call a function, after loading the library if the server does not have it.

        Raises:
            redis.exceptions.OutOfMemoryError: Redis is full, and the function or the library needs
                room.
        """
        name, keys_and_args = f"piqueue_{function}_{self._hash}", (*keys, *args)
        try:
            return self._redis.fcall(name, len(keys), *keys_and_args)
        except ResponseError as error:
            if "Function not found" not in str(error):
                raise
        self._redis.function_load(self._code, replace=True)
        return self._redis.fcall(name, len(keys), *keys_and_args)
