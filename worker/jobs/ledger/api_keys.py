"""API keys, of which only hashes are stored."""

import hashlib
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from enum import StrEnum

from pydantic import BaseModel, Field
from redis import Redis

from worker.jobs.errors import LedgerFull, LedgerReplaced, Unauthorized
from worker.jobs.ledger.connection import RedisClient, ledger_errors
from worker.jobs.record import utc

PREFIX = "pq_"
# The owner of all jobs while no key exists.
ANYONE = "anyone"
_KEYS, _USES = "piqueue:keys", "piqueue:keys:used"
# Made with the first key, so that a Redis without it never had the keys.
_LEDGER_ID = "piqueue:ledger-id"
# The weights of owners that have another one than 1; the scheduler reads them.
WEIGHTS = "piqueue:weights"
# Every API process requires a key this long after the first one was made.
NONE_LATELY_S = 1.0
# An API process records the use of a key at most this often.
USE_EVERY_S = 60.0


class Scope(StrEnum):
    """What a key allows: `submit` includes `read`, and `operate` includes all others."""

    READ = "read"
    SUBMIT = "submit"
    METRICS = "metrics"
    OPERATE = "operate"


_INCLUDED = {Scope.SUBMIT: {Scope.READ}, Scope.OPERATE: set(Scope)}
# Keys have had these before scopes existed.
_UNSCOPED = (Scope.SUBMIT, Scope.METRICS)


class ApiKey(BaseModel, frozen=True):
    """One key; `owner` is the id of its jobs, which a rotation keeps. Times are as in `Job`."""

    owner: str
    name: str
    scopes: tuple[Scope, ...] = _UNSCOPED
    created_ms: int | None = None
    expires_ms: int | None = None
    hashed: str = Field("", exclude=True, repr=False)
    # Read by `all` only.
    used_ms: int | None = Field(None, exclude=True)
    weight: int = Field(1, exclude=True)

    @property
    def expired(self) -> bool:
        """Whether the key is no longer valid."""
        return self.expires_ms is not None and self.expires_ms <= _now_ms()

    def allows(self, scope: Scope) -> bool:
        """Whether the scopes of the key include this one."""
        return any(own is scope or scope in _INCLUDED.get(own, ()) for own in self.scopes)


class KeyStore(RedisClient):
    """API keys in Redis, as SHA-256; a key has 256 random bits, so a slow hash adds nothing."""

    def __init__(self, redis: Redis) -> None:
        # Whether requests need a key even when none exists.
        self.required = False
        # How many keys the last request found.
        self.count = 0
        super().__init__(redis)
        self._none_until = 0.0
        # The id of the Redis in which keys were found last.
        self._ledger_id: bytes | None = None
        # When this process recorded the use of a key, by its hash.
        self._recorded_at: dict[str, float] = {}

    @property
    def none_lately(self) -> bool:
        """Whether `none` found no key within the last second."""
        return time.monotonic() < self._none_until

    def exist(self) -> bool:
        """Whether there are keys, expired ones included.

        Raises:
            LedgerReplaced: there were, in another Redis.
        """
        return self._lookup("")[0]

    def none(self) -> bool:
        """Whether there are no keys, which `none_lately` repeats for a second."""
        if self.exist():
            return False
        self._none_until = time.monotonic() + NONE_LATELY_S
        return True

    def _lookup(self, hashed: str) -> tuple[bool, bytes | None]:
        """Whether there are keys, and the one of this hash; checks that Redis is still the same."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hlen(_KEYS)
            pipe.hget(_KEYS, hashed)
            pipe.get(_LEDGER_ID)
            self.count, found, ledger_id = pipe.execute()
        if self.count:
            # Keys that an earlier version made have no id beside them.
            self._ledger_id = ledger_id or self._make_ledger_id()
        elif self._ledger_id not in (None, ledger_id):
            raise LedgerReplaced(
                "Redis has none of the API keys that it had: it was emptied, or another one took "
                "its place. Restore its data, or make new keys with `piqueue keys add NAME`; until "
                "then all requests are refused"
            )
        return bool(self.count), found

    def _make_ledger_id(self) -> bytes:
        """Make the id and return it, or an empty one if Redis accepts no writes."""
        with suppress(LedgerFull), ledger_errors():
            self._redis.set(_LEDGER_ID, secrets.token_hex(16), nx=True)
        return self._redis.get(_LEDGER_ID) or b""

    def find(self, key: str) -> ApiKey:
        """Read a key.

        Raises:
            Unauthorized: the key is unknown or has expired.
            LedgerReplaced: keys were found in another Redis, and this one has none.
        """
        hashed = _hash(key)
        _, found = self._lookup(hashed)
        if found is None:
            raise Unauthorized(
                "this API key is not known: check it for typing errors, or ask for a new one if "
                "it was revoked"
            )
        self._none_until = 0.0
        known = _read(hashed, found)
        if known.expired:
            assert known.expires_ms is not None
            raise Unauthorized(
                f"this API key expired on {utc(known.expires_ms):%Y-%m-%d at %H:%M} UTC: ask for "
                "a new one"
            )
        return known

    def use_is_due(self, key: ApiKey) -> bool:
        """Whether the use of a key is to be recorded; True at most once in `USE_EVERY_S`."""
        now = time.monotonic()
        if now - self._recorded_at.get(key.hashed, -USE_EVERY_S) < USE_EVERY_S:
            return False
        self._recorded_at[key.hashed] = now
        return True

    def record_use(self, key: ApiKey) -> None:
        """Record that a key was used now."""
        self._redis.hset(_USES, key.hashed, _now_ms())

    def all(self) -> list[ApiKey]:
        """Read all keys, by name, the newest of each owner first."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in (_KEYS, _USES, WEIGHTS):
                pipe.hgetall(name)
            found, uses, weights = pipe.execute()
        keys = []
        for hashed, fields in found.items():
            key = _read(hashed.decode(), fields)
            used_ms = uses.get(hashed) and int(uses[hashed])
            weight = int(weights.get(key.owner.encode(), 1))
            keys.append(key.model_copy(update={"used_ms": used_ms, "weight": weight}))
        return sorted(keys, key=lambda key: (key.name, key.owner, -(key.created_ms or 0)))

    def add(
        self,
        name: str,
        *,
        scopes: Collection[Scope] = (Scope.SUBMIT,),
        lifetime_s: int | None = None,
        weight: int = 1,
    ) -> str:
        """Create a key of a new owner and return it; it cannot be read again."""
        owner = secrets.token_hex(6)
        lifetime_ms = lifetime_s and lifetime_s * 1000
        key, fields = _new_key(owner, name, scopes, _now_ms(), lifetime_ms)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(_LEDGER_ID, secrets.token_hex(16), nx=True)
            pipe.hset(_KEYS, _hash(key), fields)
            if weight != 1:
                pipe.hset(WEIGHTS, owner, weight)
            pipe.execute()
        return key

    def rotate(self, owner: str, overlap_s: int, lifetime_s: int | None = None) -> str:
        """Create a further key of an owner and return it; the earlier ones expire in `overlap_s`.

        It has the scopes of the newest key, and unless `lifetime_s` is given, its lifetime.
        """
        keys = [key for key in self.all() if key.owner == owner]
        newest, now_ms = keys[0], _now_ms()
        ends_ms = now_ms + overlap_s * 1000
        lifetime_ms = lifetime_s and lifetime_s * 1000
        if lifetime_ms is None and newest.created_ms and newest.expires_ms:
            lifetime_ms = newest.expires_ms - newest.created_ms
        created_ms = max(now_ms, (newest.created_ms or 0) + 1)
        key, fields = _new_key(owner, newest.name, newest.scopes, created_ms, lifetime_ms)
        with self._redis.pipeline(transaction=True) as pipe:
            for old in keys:
                if old.expired:
                    pipe.hdel(_KEYS, old.hashed)
                    pipe.hdel(_USES, old.hashed)
                elif old.expires_ms is None or old.expires_ms > ends_ms:
                    cut = old.model_copy(update={"expires_ms": ends_ms})
                    pipe.hset(_KEYS, old.hashed, cut.model_dump_json())
            pipe.hset(_KEYS, _hash(key), fields)
            pipe.execute()
        return key

    def weigh(self, owner: str, weight: int) -> None:
        """Set the weight of an owner."""
        if weight == 1:
            self._redis.hdel(WEIGHTS, owner)
        else:
            self._redis.hset(WEIGHTS, owner, weight)

    def remove(self, owner: str) -> None:
        """Revoke all keys of an owner."""
        with self._redis.pipeline(transaction=True) as pipe:
            for key in self.all():
                if key.owner == owner:
                    pipe.hdel(_KEYS, key.hashed)
                    pipe.hdel(_USES, key.hashed)
            pipe.hdel(WEIGHTS, owner)
            pipe.execute()


def _new_key(
    owner: str, name: str, scopes: Collection[Scope], created_ms: int, lifetime_ms: int | None
) -> tuple[str, str]:
    """Make a key and the fields to be stored under its hash."""
    fields = ApiKey(
        owner=owner,
        name=name,
        scopes=tuple(scopes),
        created_ms=created_ms,
        expires_ms=lifetime_ms and created_ms + lifetime_ms,
    )
    return PREFIX + secrets.token_urlsafe(32), fields.model_dump_json()


def _read(hashed: str, fields: bytes) -> ApiKey:
    return ApiKey.model_validate_json(fields).model_copy(update={"hashed": hashed})


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
