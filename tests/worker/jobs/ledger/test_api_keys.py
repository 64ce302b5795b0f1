"""API keys, on a real Redis."""

import hashlib
import json
import time
from collections.abc import Callable

import pytest
from redis import Redis

from tests.scripts.processes import eventually
from worker.jobs.errors import LedgerReplaced, Unauthorized
from worker.jobs.ledger import api_keys
from worker.jobs.ledger.api_keys import WEIGHTS, ApiKey, KeyStore, Scope


@pytest.fixture
def keys(redis_client: Redis) -> KeyStore:
    return KeyStore(redis_client)


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Give a function that lets seconds pass for keys at once."""
    now_ms, passed_ms = api_keys._now_ms, 0

    def pass_time(seconds: int) -> None:
        nonlocal passed_ms
        passed_ms += seconds * 1000

    monkeypatch.setattr(api_keys, "_now_ms", lambda: now_ms() + passed_ms)
    return pass_time


def is_valid(keys: KeyStore, key: str) -> bool:
    try:
        keys.find(key)
    except Unauthorized:
        return False
    return True


def test_keys_are_stored_as_hashes_only(keys: KeyStore, redis_client: Redis) -> None:
    key = keys.add("alice")
    assert key not in str(redis_client.hgetall("piqueue:keys"))
    (alice,) = keys.all()
    assert keys.find(key) == alice
    with pytest.raises(Unauthorized, match="not known"):
        keys.find(key + "x")
    keys.remove(alice.owner)
    assert not is_valid(keys, key)


def test_the_absence_of_keys_is_cached_only_until_a_key_is_found(
    keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "NONE_LATELY_S", 60)
    assert not keys.none_lately
    assert keys.none()
    assert keys.none_lately
    keys.find(keys.add("alice"))
    assert not keys.none_lately
    assert not keys.none()


@pytest.mark.parametrize(
    ("own", "allowed"),
    [
        (Scope.READ, {Scope.READ}),
        (Scope.SUBMIT, {Scope.READ, Scope.SUBMIT}),
        (Scope.METRICS, {Scope.METRICS}),
        (Scope.OPERATE, set(Scope)),
    ],
)
def test_a_scope_includes_others(keys: KeyStore, own: Scope, allowed: set[Scope]) -> None:
    key = keys.find(keys.add("alice", scopes=[own]))
    assert {scope for scope in Scope if key.allows(scope)} == allowed


def test_a_key_made_before_there_were_scopes_allows_what_it_did(
    keys: KeyStore, redis_client: Redis
) -> None:
    hashed = hashlib.sha256(b"pq_old").hexdigest()
    redis_client.hset("piqueue:keys", hashed, json.dumps({"owner": "5f", "name": "old"}))
    old = keys.find("pq_old")
    assert {scope for scope in Scope if old.allows(scope)} == set(Scope) - {Scope.OPERATE}
    renewed = keys.find(keys.rotate("5f", overlap_s=0))
    assert (renewed.owner, renewed.scopes) == ("5f", old.scopes)
    assert not is_valid(keys, "pq_old")


def test_an_expired_key_is_refused_and_still_counts(
    keys: KeyStore, pass_time: Callable[[int], None]
) -> None:
    key = keys.add("alice", lifetime_s=60)
    assert is_valid(keys, key)
    pass_time(60)
    with pytest.raises(Unauthorized, match=r"expired on 20\d\d-\d\d-\d\d at \d\d:\d\d UTC"):
        keys.find(key)
    assert keys.exist(), "or the API would let everybody in"


def test_both_keys_are_valid_until_the_overlap_of_a_rotation_ends(
    keys: KeyStore, pass_time: Callable[[int], None]
) -> None:
    old = keys.add("alice", scopes=[Scope.READ], weight=3)
    owner = keys.find(old).owner
    new = keys.rotate(owner, overlap_s=60)
    assert keys.find(new).expires_ms is None
    assert is_valid(keys, old)
    pass_time(60)
    assert not is_valid(keys, old)
    renewed = keys.find(new)
    assert (renewed.owner, renewed.name, renewed.scopes) == (owner, "alice", (Scope.READ,))
    assert [(key.owner, key.weight, key.expired) for key in keys.all()] == [
        (owner, 3, False),
        (owner, 3, True),
    ]
    third = keys.rotate(owner, overlap_s=60)
    assert is_valid(keys, new)
    assert is_valid(keys, third)
    assert len(keys.all()) == 2, "the expired key is forgotten"


def test_a_rotation_keeps_the_lifetime_and_prolongs_no_key(keys: KeyStore) -> None:
    first = keys.find(keys.add("alice", lifetime_s=1000))
    assert first.created_ms
    second = keys.find(keys.rotate(first.owner, overlap_s=86400))
    assert second.created_ms
    assert second.expires_ms == second.created_ms + 1_000_000
    assert [key.expires_ms for key in keys.all()] == [second.expires_ms, first.expires_ms]
    third = keys.find(keys.rotate(first.owner, overlap_s=60, lifetime_s=5000))
    assert third.created_ms
    assert third.expires_ms == third.created_ms + 5_000_000
    ends_ms = third.created_ms + 60_000
    assert [abs((key.expires_ms or 0) - ends_ms) < 1000 for key in keys.all()[1:]] == [True, True]


def test_the_weights_of_owners_are_one_hash(keys: KeyStore, redis_client: Redis) -> None:
    alice = keys.find(keys.add("alice", weight=2)).owner
    bob = keys.find(keys.add("bob")).owner

    def weights() -> dict[bytes, bytes]:
        return redis_client.hgetall(WEIGHTS)  # type: ignore[return-value]

    assert WEIGHTS == "piqueue:weights"
    assert weights() == {alice.encode(): b"2"}
    assert [(key.name, key.weight) for key in keys.all()] == [("alice", 2), ("bob", 1)]
    keys.weigh(bob, 5)
    keys.weigh(alice, 1)
    assert weights() == {bob.encode(): b"5"}
    keys.remove(bob)
    assert weights() == {}


def test_the_use_of_a_key_is_recorded_once_in_a_while(
    keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = (keys.find(keys.add(name)) for name in ("alice", "bob"))

    def due(key: ApiKey) -> bool:
        return keys.use_is_due(key)

    assert [due(alice), due(alice), due(bob), due(bob)] == [True, False, True, False]
    monkeypatch.setattr(api_keys, "USE_EVERY_S", 0.05)
    assert eventually(lambda: due(alice))
    keys.record_use(bob)
    unused, used = keys.all()
    assert unused.used_ms is None
    assert used.used_ms == pytest.approx(time.time() * 1000, abs=60_000)
    keys.remove(bob.owner)
    assert [key.used_ms for key in keys.all()] == [None]


def test_removed_keys_are_missed_only_if_redis_was_replaced(
    keys: KeyStore, redis_client: Redis
) -> None:
    assert not keys.exist(), "a first start with an empty Redis"
    key = keys.add("alice")
    keys.find(key)
    data = {name: redis_client.dump(name) for name in redis_client.scan_iter()}
    keys.remove(keys.all()[0].owner)
    assert not keys.exist(), "its operator removed the last key"

    redis_client.restore("piqueue:keys", 0, data[b"piqueue:keys"])  # type: ignore[arg-type]
    assert keys.exist()
    redis_client.flushdb()
    for ask in (keys.exist, lambda: keys.find(key)):
        with pytest.raises(LedgerReplaced, match="Restore its data, or make new keys"):
            ask()
    assert not KeyStore(redis_client).exist(), "another process has missed nothing"
    assert not keys.none_lately

    for name, value in data.items():
        redis_client.restore(name, 0, value)  # type: ignore[arg-type]
    assert keys.find(key).name == "alice"
    redis_client.flushdb()
    with pytest.raises(LedgerReplaced):
        keys.exist()
    assert keys.find(keys.add("bob")).name == "bob"
    keys.remove(keys.all()[0].owner)
    assert not keys.exist(), "the new Redis is the known one since it has keys"


def test_keys_of_an_earlier_version_are_missed_too(keys: KeyStore, redis_client: Redis) -> None:
    keys.add("alice")
    redis_client.delete("piqueue:ledger-id")
    assert keys.exist()
    keys.remove(keys.all()[0].owner)
    assert not keys.exist()
    keys.add("bob")
    redis_client.delete("piqueue:ledger-id")
    assert keys.exist()
    redis_client.flushdb()
    with pytest.raises(LedgerReplaced):
        keys.exist()
