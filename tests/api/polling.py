"""Waiting for a job over HTTP, with a deadline."""

import time
from collections.abc import Callable
from typing import Any

import httpx2


def wait_done(
    client: httpx2.Client, job: dict[str, Any], deadline_s: float = 120
) -> dict[str, Any]:
    """Poll a job until it is done; gives it as it then stands."""
    deadline = time.monotonic() + deadline_s
    while not job["done"]:
        assert time.monotonic() < deadline, f"not done in {deadline_s} s: {job}"
        time.sleep(0.02)
        job = client.get(job["links"]["self"]).raise_for_status().json()
    return job


def until_cached(submit: Callable[[], dict[str, Any]], count: int) -> dict[str, Any]:
    """Give the first job that finds so many scores in the cache.

    A worker caches the scores of a chunk just after their commit, so a job that follows at once may
    miss them.
    """
    deadline = time.monotonic() + 60
    while (job := submit())["counts"]["cached"] < count:
        assert time.monotonic() < deadline, f"not in the cache: {job}"
    return job


def all_results(
    client: httpx2.Client, job: dict[str, Any], limit: int = 40
) -> list[dict[str, Any]]:
    """Read every page of a job's results."""
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get(job["links"]["results"], params={"limit": limit, **cursor})
        body = page.raise_for_status().json()
        items += body["items"]
        if "next_cursor" not in body:
            return items
        cursor = {"cursor": body["next_cursor"]}
