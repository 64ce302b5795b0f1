"""Results on S3: a part file a chunk, as JSONL, and a manifest that says which parts count."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice

from pydantic import BaseModel
from pydantic_core import to_json
from redis import Redis

from worker.jobs.items import ItemResult
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.models.catalog import ModelCard
from worker.jobs.record import Job
from worker.jobs.s3 import Folder
from worker.jobs.storage.expiry_index import ExpiryIndex
from worker.jobs.storage.result_lines import result_line
from worker.jobs.webhooks.payload import job_fields

MANIFEST = "manifest.json"
JSONL = "application/x-ndjson"
# Parts that are looked at side by side while a manifest is made.
ABREAST = 8
LOOKED_AT_ONCE = 64


class Part(BaseModel):
    """One part file: which items it has, and what its bytes come to."""

    key: str
    first_index: int
    last_index: int
    items: int
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What is read of a manifest; it has the fields of its job too, as webhooks show them."""

    parts: list[Part]


class ResultParts:
    """Parts at `{prefix}/{job_id}/part-00007.jsonl`, the manifest beside them."""

    def __init__(self, folder: Folder, redis: Redis) -> None:
        self._folder = folder
        self._shelf = ExpiryIndex(redis)

    def expect(self, job_id: str, ttl_s: float) -> None:
        """Say before a job is submitted that its parts are to be erased in `ttl_s`."""
        self._shelf.put(job_id, ttl_s)

    def write(self, claim: Claim, results: Sequence[ItemResult], model: ModelCard) -> None:
        """Write the part of a chunk, as its results are about to be committed."""
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
        go_on: Callable[[], object],
    ) -> None:
        """Write the manifest of a job that is done, from all `results` that its ledger has.

        A part that holds something else, because two workers had the same chunk, is written
        again. `go_on` is called from time to time, and may raise to stop this.
        """
        parts: list[Part] = []
        chunks = _chunks(job, results)
        with ThreadPoolExecutor(ABREAST, "parts") as pool:
            while some := list(islice(chunks, LOOKED_AT_ONCE)):
                go_on()
                parts += pool.map(lambda chunk: self._settled(job, model, *chunk), some)
        fields = {**job_fields(job), "parts": [part.model_dump() for part in parts]}
        fields["model"] |= {"labels": model.labels, "thresholds": model.thresholds}
        self._folder.put(f"{job.id}/{MANIFEST}", to_json(fields), "application/json")

    def _settled(
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
        """Read the manifest of a job; None while it is not written."""
        body = self._folder.get(f"{job_id}/{MANIFEST}")
        return None if body is None else Manifest.model_validate_json(body)

    def url(self, job_id: str, expires_s: int, key: str = MANIFEST) -> str:
        """Give a URL by which anyone can read the manifest, or a part, for a time."""
        return self._folder.presign(f"{job_id}/{key}", expires_s)

    def erase(self, job_id: str) -> None:
        """Erase the parts of a job, or have a worker do it as soon as S3 answers."""
        self._shelf.clear(job_id, self._folder)


def part_key(job_id: str, chunk_index: int) -> str:
    """Name the part file of a chunk."""
    return f"{job_id}/part-{chunk_index:05d}.jsonl"


def part_bytes(stored: Iterable[StoredResult], model: ModelCard) -> bytes:
    """Write the lines of a part."""
    return b"".join(result_line(result, model) for result in stored)


def _chunks(job: Job, results: Iterable[StoredResult]) -> Iterator[tuple[int, list[StoredResult]]]:
    for chunk_index, stored in groupby(results, lambda result: result.index // job.chunk_items):
        yield chunk_index, list(stored)
