"""What is alike, as it is stored and read."""

from pathlib import Path

from redis import Redis

from worker.jobs.record import new_job_id
from worker.jobs.storage.file_blobs import FileBlobs
from worker.jobs.storage.similar import (
    BLOCK_GROUPS,
    BLOCK_ITEMS,
    MOST_NEIGHBOURS,
    NOTHING,
    Group,
    SimilarPictures,
    Summary,
    pack_neighbours,
)


def test_what_is_stored_is_read_by_item_and_by_group(redis_client: Redis, tmp_path: Path) -> None:
    similar = SimilarPictures(FileBlobs(tmp_path, redis_client, 0), new_job_id(), "ab" * 32)
    assert similar.summary() is None
    assert similar.of_item(0) is None
    assert list(similar.groups()) == []

    count = BLOCK_ITEMS + 7
    rows = [pack_neighbours([(index + 1, 1.0), (3, 0.25)]) for index in range(count)]
    rows[5] = NOTHING
    rows[6] = pack_neighbours([])
    groups = [Group(count - index, [index, index + 1]) for index in range(BLOCK_GROUPS + 3)]
    summary = Summary(count - 1, len(groups), 17)
    similar.store(summary, rows, groups)
    assert similar.summary() == summary
    (first, exact), (second, near) = similar.of_item(BLOCK_ITEMS + 2) or []
    assert (first, exact, second) == (BLOCK_ITEMS + 3, 1.0, 3)
    assert abs(near - 0.25) < 1e-4
    assert similar.of_item(5) is None
    assert similar.of_item(6) == []
    assert similar.of_item(count) is None
    assert list(similar.groups()) == groups
    assert list(similar.groups(BLOCK_GROUPS - 1)) == groups[BLOCK_GROUPS - 1 :]
    assert list(similar.groups(len(groups))) == []


def test_an_item_has_a_bounded_number_of_neighbours() -> None:
    many = [(index, 0.5) for index in range(MOST_NEIGHBOURS + 9)]
    assert len(pack_neighbours(many)) == len(pack_neighbours([])) == len(NOTHING)
