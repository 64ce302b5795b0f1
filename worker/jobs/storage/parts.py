"""Results on S3: a JSONL file for each chunk, and a manifest that lists the valid ones."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice

from pydantic import BaseModel
from pydantic_core import to_json
from redis import Redis

from worker.jobs.items import ItemResult
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.models.artifact import ModelCard
from worker.jobs.record import Job
from worker.jobs.results import ResultOut
from worker.jobs.s3 import Folder
from worker.jobs.storage.expiry import ExpiryIndex
from worker.jobs.webhooks.payload import job_fields

MANIFEST = "manifest.json"
JSONL = "application/x-ndjson"
# Concurrent reads of parts while a manifest is written.
CONCURRENCY = 8
PARTS_BATCH = 64


class Part(BaseModel):
    """One part file: its items, size and hash."""

    key: str
    first_index: int
    last_index: int
    items: int
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """The part of a manifest that is read; a manifest also has the fields of its job."""

    parts: list[Part]


class ResultParts:
    """Parts at `{prefix}/{job_id}/part-00007.jsonl`, and the manifest in the same folder."""

    def __init__(self, folder: Folder, redis: Redis) -> None:
        self._folder = folder
        self._expiry = ExpiryIndex(redis)

    def expect(self, job_id: str, ttl_s: float) -> None:
        """Let the parts of a job expire in `ttl_s`; called before it is submitted."""
        self._expiry.put(job_id, ttl_s)

    def write(self, claim: Claim, results: Sequence[ItemResult], model: ModelCard) -> None:
        """Write the part of a chunk before its results are committed."""
        pairs = zip(claim.specs, results, strict=True)
        stored = [
            StoredResult(index, spec, result, claim.tries)
            for index, (spec, result) in enumerate(pairs, start=claim.first_index)
        ]
        key = part_key(claim.job_id, claim.chunk_index)
        self._folder.put(key, part_bytes(stored, model), JSONL)

    def finish(
        self,
        job: Job,
        model: ModelCard,
        results: Iterable[StoredResult],
        keep_alive: Callable[[], object],
    ) -> None:
        """Write the manifest of a job that is done, from all `results` in the ledger.

        A part that differs, because two workers had the same chunk, is written again. `keep_alive`
        is called now and then, and may raise to stop.
        """
        parts: list[Part] = []
        by_chunk = groupby(results, lambda result: result.index // job.chunk_items)
        chunks = ((index, list(stored)) for index, stored in by_chunk)
        with ThreadPoolExecutor(CONCURRENCY, "parts") as pool:
            while some := list(islice(chunks, PARTS_BATCH)):
                keep_alive()
                parts += pool.map(lambda chunk: self._verified_part(job, model, *chunk), some)
        fields = {**job_fields(job), "parts": [part.model_dump() for part in parts]}
        fields["model"] |= {"labels": model.labels, "thresholds": model.thresholds}
        self._folder.put(f"{job.id}/{MANIFEST}", to_json(fields), "application/json")

    def _verified_part(
        self, job: Job, model: ModelCard, chunk_index: int, stored: Sequence[StoredResult]
    ) -> Part:
        key, body = part_key(job.id, chunk_index), part_bytes(stored, model)
        digest = hashlib.sha256(body).hexdigest()
        if self._folder.sha256(key) != digest:
            self._folder.put(key, body, JSONL)
        return Part(
            key=key.rpartition("/")[2],
            first_index=stored[0].index,
            last_index=stored[-1].index,
            items=len(stored),
            bytes=len(body),
            sha256=digest,
        )

    def manifest(self, job_id: str) -> Manifest | None:
        """Read the manifest of a job; None if it is not written yet."""
        body = self._folder.get(f"{job_id}/{MANIFEST}")
        return None if body is None else Manifest.model_validate_json(body)

    def url(self, job_id: str, expires_s: int, key: str = MANIFEST) -> str:
        """Make a URL with which anyone can read the manifest, or a part, for `expires_s`."""
        return self._folder.presign(f"{job_id}/{key}", expires_s)

    def erase(self, job_id: str) -> None:
        """Erase the parts of a job; if S3 does not answer, a worker does it later."""
        self._expiry.clear(job_id, lambda _: self._folder.delete_under(f"{job_id}/"))


def part_key(job_id: str, chunk_index: int) -> str:
    """The key of the part file of a chunk."""
    return f"{job_id}/part-{chunk_index:05d}.jsonl"


def part_bytes(stored: Iterable[StoredResult], model: ModelCard) -> bytes:
    """Write the lines of a part."""
    return b"".join(_result_line(result, model) for result in stored)


def _result_line(stored: StoredResult, model: ModelCard) -> bytes:
    """Write a result with its line break; the bytes are deterministic."""
    scores = stored.result.scores
    answer = (None, None) if scores is None else model.answer(scores)
    return ResultOut.of(stored, *answer).model_dump_json(exclude_unset=True).encode() + b"\n"
