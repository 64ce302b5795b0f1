"""Kept features: for each chunk and backbone of a job, those of its pictures, by their SHA-256.

The difference hash of each picture is kept with them.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import structlog

from worker.jobs.items import ImageFacts, ItemResult, PackedFeatures
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.record import Job
from worker.jobs.storage.blobs import BlobStore

log = structlog.get_logger()

# A block begins with this, the variant of the backbone, and the size of the features of a picture.
_HEADER = struct.Struct("<4s8sI")
# Blocks of the first kind have no difference hashes.
_HASH_BYTES = {b"PQF1": 0, b"PQF2": 8}
_SHA256_BYTES = 32
# Blocks that are read at once.
_READ_BLOCKS = 16


class Kept(NamedTuple):
    """What is kept of a picture: its packed features and, of 8 bytes, its difference hash.

    The hash may be empty. `variant` is that of the backbone.
    """

    variant: str
    features: memoryview
    difference_hash: memoryview


def pack_blocks(results: Iterable[ItemResult]) -> dict[str, bytes]:
    """Return the blocks of the results of a chunk, by backbone.

    A picture takes the size of its packed features, 32 bytes for its SHA-256 and 8 for its
    difference hash. A worker scores all pictures of a chunk with one variant of a backbone.
    """
    rows: dict[str, dict[str, tuple[PackedFeatures, bytes]]] = {}
    for result in results:
        for backbone, features in result.features.items():
            assert result.image is not None
            of_backbone = rows.setdefault(backbone, {})
            of_backbone[result.image.sha256] = features, result.difference_hash
    return {backbone: _pack(by_picture) for backbone, by_picture in rows.items()}


def _pack(by_picture: Mapping[str, tuple[PackedFeatures, bytes]]) -> bytes:
    ((variant, size),) = {(one.variant, len(one.content)) for one, _ in by_picture.values()}
    magic = b"PQF2" if all(one for _, one in by_picture.values()) else b"PQF1"
    rows = (
        bytes.fromhex(sha256) + features.content + difference_hash[: _HASH_BYTES[magic]]
        for sha256, (features, difference_hash) in by_picture.items()
    )
    return _HEADER.pack(magic, variant.encode(), size) + b"".join(rows)


def unpack_block(block: bytes) -> dict[str, Kept]:
    """Return what is kept of pictures, by the SHA-256 of their bytes.

    Raises:
        ValueError: it is no block.
    """
    whole = len(block) >= _HEADER.size
    magic, name, size = _HEADER.unpack_from(block) if whole else (b"", b"", 0)
    rows = memoryview(block)[_HEADER.size :]
    row_bytes = _SHA256_BYTES + size + _HASH_BYTES.get(magic, 0)
    if magic not in _HASH_BYTES or len(rows) % row_bytes:
        raise ValueError("not a block of features: submit the pictures again")
    found, variant = {}, name.rstrip(b"\0").decode("ascii", "replace")
    for start in range(0, len(rows), row_bytes):
        at, end = start + _SHA256_BYTES, start + _SHA256_BYTES + size
        kept = Kept(variant, rows[at:end], rows[end : start + row_bytes])
        found[rows[start:at].hex()] = kept
    return found


def block_name(chunk_index: int, backbone: str) -> str:
    """The name of a block in the store, unique within its job."""
    return f"{chunk_index:05d}-{backbone[:16]}"


def with_kept(
    blobs: BlobStore, job: Job, backbone: str, results: Iterable[StoredResult]
) -> Iterator[tuple[StoredResult, Kept | None]]:
    """Pair results, in index order, with what is kept of their pictures, or None if nothing is."""
    for some in _by_chunks(job, results):
        pictures = [(stored.index, stored.result.image) for stored in some]
        yield from zip(some, kept_of(blobs, job, backbone, pictures), strict=True)


def kept_of(
    blobs: BlobStore, job: Job, backbone: str, pictures: Iterable[tuple[int, ImageFacts | None]]
) -> list[Kept | None]:
    """What is kept of pictures, given by index, in their order; None for those without facts.

    All are in memory at once. A damaged block counts as missing, and is logged.
    """
    located = [(index // job.chunk_items, image) for index, image in pictures]
    chunks = dict.fromkeys(chunk for chunk, _ in located)
    names = [block_name(chunk, backbone) for chunk in chunks]
    blocks: dict[int, dict[str, Kept]] = {}
    for chunk, block in zip(chunks, blobs.get_features(job.id, names), strict=True):
        if block is None:
            continue
        try:
            blocks[chunk] = unpack_block(block)
        except ValueError as error:
            log.error("features_damaged", of_job=job.id, of_chunk=chunk, reason=str(error))
    return [blocks.get(chunk, {}).get(image.sha256) if image else None for chunk, image in located]


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
