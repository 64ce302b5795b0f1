"""Kept features: blocks by chunk and backbone, and the pairs of results and features."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from tests.worker.jobs.ledger.test_store import MODEL
from worker.jobs.items import (
    ImageFacts,
    ItemResult,
    ItemSpec,
    PackedFeatures,
    Rejection,
    RejectionCode,
    Stage,
)
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.record import Counts, Job, JobStatus, Lane
from worker.jobs.storage.features import block_name, pack_blocks, unpack_block, with_kept
from worker.jobs.storage.file_blobs import FileBlobs

BACKBONES = ("a" * 64, "b" * 64)
FAILED = ItemResult(rejection=Rejection(RejectionCode.TRUNCATED, Stage.DECODE, False, "cut"))


def scored(number: int) -> ItemResult:
    image = ImageFacts(f"{number:064x}", 10)
    kinds = zip(BACKBONES, ("float", "int8"), (3, 5), strict=True)
    features = {one: PackedFeatures(name, bytes([number] * size)) for one, name, size in kinds}
    return ItemResult(scores=(0.5,), image=image, features=features)


def test_a_block_has_the_features_of_each_picture_by_its_hash() -> None:
    blocks = pack_blocks([scored(1), FAILED, scored(2), scored(1)])
    assert blocks.keys() == set(BACKBONES)
    first, second = (unpack_block(blocks[one]) for one in BACKBONES)
    assert {key: bytes(value.features) for key, value in first.items()} == {
        f"{1:064x}": b"\1\1\1",
        f"{2:064x}": b"\2\2\2",
    }
    assert {one.variant for one in first.values()} == {"float"}
    kept = second[f"{2:064x}"]
    assert (kept.variant, len(kept.features), bytes(kept.difference_hash)) == ("int8", 5, b"")
    assert len(blocks[BACKBONES[0]]) == 16 + 2 * (32 + 3)
    assert pack_blocks([FAILED]) == {}


def test_the_difference_hash_of_a_picture_is_kept_with_its_features() -> None:
    hashed = [replace(scored(number), difference_hash=bytes([number] * 8)) for number in (1, 2)]
    block = pack_blocks(hashed)[BACKBONES[0]]
    assert len(block) == 16 + 2 * (32 + 3 + 8)
    kept = unpack_block(block)[f"{2:064x}"]
    assert (bytes(kept.features), bytes(kept.difference_hash)) == (b"\2\2\2", b"\2" * 8)


CUT = b"PQF1float\0\0\0\3\0\0\0" + b"x" * 34


@pytest.mark.parametrize("content", [b"", b"P", b"other bytes", CUT])
def test_other_bytes_are_no_block(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a block"):
        unpack_block(content)


class ReadBlocks(FileBlobs):
    """Blocks in memory, which counts the reads of each."""

    def __init__(self, blocks: dict[str, bytes]) -> None:
        self.blocks = blocks
        self.read: list[str] = []

    def get_features(self, job_id: str, names: Sequence[str]) -> Iterator[bytes | None]:
        assert job_id == "job_x"
        self.read += names
        return (self.blocks.get(name) for name in names)


def test_results_are_paired_with_their_features_a_few_chunks_at_a_time() -> None:
    counts = Counts(100, 0, 100, 0, 0)
    job = Job("job_x", "owner", JobStatus.SUCCEEDED, MODEL.ref, Lane.BULK, counts, 2, 0, 0)
    missing = 7
    blocks = {
        block_name(chunk, BACKBONES[0]): pack_blocks([scored(2 * chunk), scored(2 * chunk + 1)])[
            BACKBONES[0]
        ]
        for chunk in range(50)
        if chunk != missing
    }
    blobs = ReadBlocks(blocks)
    stored = [
        StoredResult(index, ItemSpec(str(index)), FAILED if index == 3 else scored(index), 1)
        for index in range(100)
    ]
    pairs = list(with_kept(blobs, job, BACKBONES[0], iter(stored)))
    assert [one for one, _ in pairs] == stored
    for index, (_, found) in enumerate(pairs):
        if index in (3, 2 * missing, 2 * missing + 1):
            assert found is None
        else:
            assert found is not None
            assert (found.variant, bytes(found.features)) == ("float", bytes([index] * 3))
    assert len(blobs.read) == len(set(blobs.read)) == 50


@pytest.mark.parametrize("left", [b"", b"PQF1", b"other bytes"])
def test_a_damaged_block_counts_as_missing_and_is_logged(left: bytes) -> None:
    counts = Counts(4, 0, 4, 0, 0)
    job = Job("job_x", "owner", JobStatus.SUCCEEDED, MODEL.ref, Lane.BULK, counts, 2, 0, 0)
    whole = pack_blocks([scored(2), scored(3)])[BACKBONES[0]]
    blobs = ReadBlocks({block_name(0, BACKBONES[0]): left, block_name(1, BACKBONES[0]): whole})
    stored = [StoredResult(index, ItemSpec(str(index)), scored(index), 1) for index in range(4)]
    with capture_logs() as logs:
        found = [kept for _, kept in with_kept(blobs, job, BACKBONES[0], stored)]
    assert found[:2] == [None, None]
    assert [bytes(kept.features) for kept in found[2:] if kept] == [b"\2\2\2", b"\3\3\3"]
    (logged,) = logs
    assert (logged["event"], logged["of_job"], logged["of_chunk"]) == (
        "features_damaged",
        "job_x",
        0,
    )
