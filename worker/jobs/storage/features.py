"""Kept features: for each chunk and backbone of a job, those of its pictures, by their SHA-256.

The difference hash of each picture is kept with them.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog

from worker.jobs.items import ItemResult
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.record import Job
from worker.jobs.storage.blobs import BlobStore

log = structlog.get_logger()

# A block begins with this, and with the size of the features of one picture.
_HEADER = struct.Struct("<4sI")
# Blocks of the first kind have no difference hashes.
_HASH_BYTES = {b"PQF1": 0, b"PQF2": 8}
_SHA256_BYTES = 32
# Blocks that are read at once.
_READ_BLOCKS = 16


@dataclass(frozen=True)
class Kept:
    """What is kept of a picture: its packed features and, of 8 bytes, its difference hash.

    The hash is empty in blocks of earlier versions.
    """

    features: memoryview
    difference_hash: memoryview


def pack_blocks(results: Iterable[ItemResult]) -> dict[str, bytes]:
    """Return the blocks of the results of a chunk, by backbone.

    A picture takes the size of its packed features, 32 bytes for its SHA-256 and 8 for its
    difference hash.
    """
    rows: dict[str, dict[str, tuple[bytes, bytes]]] = {}
    for result in results:
        for backbone, features in result.features.items():
            assert result.image is not None
            of_backbone = rows.setdefault(backbone, {})
            of_backbone[result.image.sha256] = features, result.difference_hash
    return {backbone: _pack(by_picture) for backbone, by_picture in rows.items()}


def _pack(by_picture: Mapping[str, tuple[bytes, bytes]]) -> bytes:
    features, hashes = zip(*by_picture.values(), strict=True)
    magic = b"PQF2" if all(hashes) else b"PQF1"
    rows = (
        bytes.fromhex(sha256) + features + difference_hash[: _HASH_BYTES[magic]]
        for sha256, (features, difference_hash) in by_picture.items()
    )
    return _HEADER.pack(magic, len(features[0])) + b"".join(rows)


def unpack_block(block: bytes) -> dict[str, Kept]:
    """Return what is kept of pictures, by the SHA-256 of their bytes.

    Raises:
        ValueError: it is no block.
    """
    whole = len(block) >= _HEADER.size
    magic, size = _HEADER.unpack_from(block) if whole else (b"", 0)
    rows = memoryview(block)[_HEADER.size :]
    row_bytes = _SHA256_BYTES + size + _HASH_BYTES.get(magic, 0)
    if magic not in _HASH_BYTES or len(rows) % row_bytes:
        raise ValueError("not a block of features: submit the pictures again")
    found = {}
    for start in range(0, len(rows), row_bytes):
        row = rows[start : start + row_bytes]
        features, difference_hash = row[_SHA256_BYTES:][:size], row[_SHA256_BYTES + size :]
        found[row[:_SHA256_BYTES].hex()] = Kept(features, difference_hash)
    return found


def block_name(chunk_index: int, backbone: str) -> str:
    """The name of a block in the store, unique within its job."""
    return f"{chunk_index:05d}-{backbone[:16]}"


def with_features(
    blobs: BlobStore, job: Job, backbone: str, results: Iterable[StoredResult]
) -> Iterator[tuple[StoredResult, memoryview | None]]:
    """Pair results, in index order, with their packed features, or None if none are kept.

    A damaged block counts as missing, and is logged.
    """
    for stored, kept in with_kept(blobs, job, backbone, results):
        yield stored, None if kept is None else kept.features


def with_kept(
    blobs: BlobStore, job: Job, backbone: str, results: Iterable[StoredResult]
) -> Iterator[tuple[StoredResult, Kept | None]]:
    """As `with_features`, with all that is kept of each picture."""
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
