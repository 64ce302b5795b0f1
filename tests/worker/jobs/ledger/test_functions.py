"""Functions in Redis: loaded when they are missing, one library for each version."""

from typing import Any

import pytest
from redis import Redis

from tests.worker.jobs.ledger.test_store import claim, scored, submit
from worker.jobs.errors import LedgerFull
from worker.jobs.ledger.functions import Library
from worker.jobs.ledger.store import JobStore


def test_functions_that_were_removed_are_loaded_again(redis_client: Redis) -> None:
    store = JobStore(redis_client)
    job_id, chunks = submit(store, total=10)
    redis_client.function_flush()
    taken = claim(store, job_id, chunks[0])
    redis_client.function_flush()
    assert store.commit(taken, scored(taken))
    assert store.job(job_id).status.done


def test_two_versions_use_one_server(redis_client: Redis) -> None:
    old, new = (
        Library(redis_client, "test", f"offer('answer', function() return {answer} end)")
        for answer in (1, 2)
    )
    assert [library.call("answer", ()) for library in (old, new, old, new)] == [1, 2, 1, 2]


def test_a_call_does_not_see_the_arguments_and_times_of_an_earlier_one(redis_client: Redis) -> None:
    code = "offer('both', function() return {KEYS[1] or '', ARGV[1] or '', now_ms()} end)"
    library = Library(redis_client, "test", code)
    *first, first_ms = library.call("both", ["argument"], ["piqueue:key"])
    redis_client.hincrby("piqueue:clock", "offset", 5000)
    *second, second_ms = library.call("both", ())
    assert (first, second) == ([b"piqueue:key", b"argument"], [b"", b""])
    assert second_ms >= first_ms + 5000


def test_a_full_redis_cannot_load_functions_and_says_so(redis_client: Redis) -> None:
    store = JobStore(redis_client)
    before: Any = redis_client.config_get("maxmemory")
    redis_client.function_flush()
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(LedgerFull):
            store.erase("job_of_nobody")
    finally:
        redis_client.config_set("maxmemory", before["maxmemory"])
    store.erase("job_of_nobody")
