"""What is alike in a job: the most similar pictures of each, and groups of near-duplicates.

It is stored beside the features of the job, in blocks that are small enough to read for one answer.
"""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice

from worker.jobs.storage.blobs import BlobStore

# Of each picture.
MOST_NEIGHBOURS = 20
# Members of a group that are stored, the first ones.
MOST_MEMBERS = 100
# Items, or groups, in a block.
BLOCK_ITEMS = BLOCK_GROUPS = 1000
_NEIGHBOUR = struct.Struct("<iH")
_ROW_BYTES = MOST_NEIGHBOURS * _NEIGHBOUR.size
_STEPS = 65535
# The index of the first neighbour of an item that was not compared.
NOT_COMPARED = -2
NONE = -1


@dataclass(frozen=True)
class Summary:
    """How many pictures were compared, and how many groups of near-duplicates they have.

    `duplicates` are the pictures in groups, without one of each.
    """

    compared: int
    groups: int
    duplicates: int


@dataclass(frozen=True)
class Group:
    """Near-duplicates: how many there are, and the indexes of the first ones."""

    count: int
    indexes: Sequence[int]


def pack_neighbours(pairs: Iterable[tuple[int, float]]) -> bytes:
    """Pack the neighbours of an item, as index and similarity, the nearest first."""
    packed = [
        _NEIGHBOUR.pack(index, round(max(similarity, 0) * _STEPS)) for index, similarity in pairs
    ][:MOST_NEIGHBOURS]
    return b"".join(packed) + _NEIGHBOUR.pack(NONE, 0) * (MOST_NEIGHBOURS - len(packed))


NOTHING = _NEIGHBOUR.pack(NOT_COMPARED, 0) * MOST_NEIGHBOURS


class SimilarPictures:
    """What is alike in a job, by the features of one backbone; methods raise StorageUnavailable."""

    def __init__(self, blobs: BlobStore, job_id: str, backbone: str) -> None:
        self._blobs, self._job_id, self._name = blobs, job_id, f"similar-{backbone[:16]}"

    def store(self, summary: Summary, rows: Iterable[bytes], groups: Iterable[Group]) -> None:
        """Store the packed neighbours of each item by index, and the groups, the largest first.

        Raises:
            QueueFull: the disk is full.
        """
        packed, found = iter(rows), iter(groups)
        for number in count():
            if not (some := list(islice(packed, BLOCK_ITEMS))):
                break
            self._put(f"{number:05d}", b"".join(some))
        for number in count():
            if not (few := list(islice(found, BLOCK_GROUPS))):
                break
            content = json.dumps([[group.count, *group.indexes] for group in few])
            self._put(f"groups-{number:05d}", zlib.compress(content.encode()))
        # Last: what is listed is complete.
        self._put("summary", json.dumps(asdict(summary)).encode())

    def summary(self) -> Summary | None:
        """The counts; None if the pictures were not compared yet."""
        content = self._get("summary")
        return None if content is None else Summary(**json.loads(content))

    def of_item(self, index: int) -> list[tuple[int, float]] | None:
        """The pictures most similar to an item, as index and cosine, the nearest first.

        None if the item was not compared.
        """
        block = self._get(f"{index // BLOCK_ITEMS:05d}")
        start = index % BLOCK_ITEMS * _ROW_BYTES
        row = (block or b"")[start : start + _ROW_BYTES]
        pairs = list(_NEIGHBOUR.iter_unpack(row))
        if not pairs or pairs[0][0] == NOT_COMPARED:
            return None
        return [(index, steps / _STEPS) for index, steps in pairs if index != NONE]

    def groups(self, start: int = 0) -> Iterator[Group]:
        """The groups from one on, the largest first."""
        number, skipped = divmod(start, BLOCK_GROUPS)
        while content := self._get(f"groups-{number:05d}"):
            for members, *indexes in json.loads(zlib.decompress(content))[skipped:]:
                yield Group(members, indexes)
            number, skipped = number + 1, 0

    def _put(self, name: str, content: bytes) -> None:
        self._blobs.put_features(self._job_id, {f"{self._name}-{name}": content})

    def _get(self, name: str) -> bytes | None:
        return next(iter(self._blobs.get_features(self._job_id, [f"{self._name}-{name}"])))
