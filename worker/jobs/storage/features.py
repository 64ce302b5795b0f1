"""Kept features: for each chunk and backbone of a job, those of its pictures, by their hashes."""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

import structlog

from worker.jobs.items import ItemResult
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.record import Job
from worker.jobs.storage.blobs import BlobStore

log = structlog.get_logger()

# A block begins with this, and with the size of the features of one picture.
_HEADER = struct.Struct("<4sI")
_MAGIC = b"PQF1"
_HASH_BYTES = 32
# Blocks that are read at once.
_READ_BLOCKS = 16


def pack_blocks(results: Iterable[ItemResult]) -> dict[str, bytes]:
    """Return the blocks of the results of a chunk, by backbone.

    A picture takes the size of its packed features and the 32 bytes of its SHA-256.
    """
    rows: dict[str, dict[str, bytes]] = {}
    for result in results:
        for backbone, features in result.features.items():
            assert result.image is not None
            rows.setdefault(backbone, {})[result.image.sha256] = features
    return {backbone: _pack(by_picture) for backbone, by_picture in rows.items()}


def _pack(by_picture: Mapping[str, bytes]) -> bytes:
    size = len(next(iter(by_picture.values())))
    rows = (bytes.fromhex(sha256) + features for sha256, features in by_picture.items())
    return _HEADER.pack(_MAGIC, size) + b"".join(rows)


def unpack_block(block: bytes) -> dict[str, memoryview]:
    """Return the packed features of pictures, by the SHA-256 of their bytes.

    Raises:
        ValueError: it is no block.
    """
    whole = len(block) >= _HEADER.size
    magic, size = _HEADER.unpack_from(block) if whole else (b"", 0)
    rows = memoryview(block)[_HEADER.size :]
    if magic != _MAGIC or len(rows) % (_HASH_BYTES + size):
        raise ValueError("not a block of features: submit the pictures again")
    starts = range(0, len(rows), _HASH_BYTES + size)
    return {
        rows[start : start + _HASH_BYTES].hex(): rows[start + _HASH_BYTES :][:size]
        for start in starts
    }


def block_name(chunk_index: int, backbone: str) -> str:
    """The name of a block in the store, unique within its job."""
    return f"{chunk_index:05d}-{backbone[:16]}"


def with_features(
    blobs: BlobStore, job: Job, backbone: str, results: Iterable[StoredResult]
) -> Iterator[tuple[StoredResult, memoryview | None]]:
    """Pair results, in index order, with their packed features, or None if none are kept.

    A damaged block counts as missing, and is logged.
    """
    for some in _by_chunks(job, results):
        chunks = dict.fromkeys(stored.index // job.chunk_items for stored in some)
        names = [block_name(chunk, backbone) for chunk in chunks]
        blocks = {}
        for chunk, block in zip(chunks, blobs.get_features(job.id, names), strict=True):
            if block is None:
                continue
            try:
                blocks[chunk] = unpack_block(block)
            except ValueError as error:
                log.error("features_damaged", of_job=job.id, of_chunk=chunk, reason=str(error))
        for stored in some:
            kept = blocks.get(stored.index // job.chunk_items, {})
            image = stored.result.image
            yield stored, kept.get(image.sha256) if image else None


def _by_chunks(job: Job, results: Iterable[StoredResult]) -> Iterator[Sequence[StoredResult]]:
    """Divide results into those of a few chunks each."""
    some: list[StoredResult] = []
    for stored in results:
        if some and stored.index // job.chunk_items >= (
            some[0].index // job.chunk_items + _READ_BLOCKS
        ):
            yield some
            some = []
        some.append(stored)
    if some:
        yield some
