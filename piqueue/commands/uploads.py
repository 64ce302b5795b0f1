"""Uploads many files to a draft, in batches, several at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from piqueue.client import Client
from piqueue.commands.pictures import LeftOut
from piqueue.errors import PiqueueApiError

BATCH_FILES = 100
BATCH_BYTES = 16_000_000
PARALLEL = 4


def upload(
    client: Client, job_id: str, pictures: Mapping[str, Path], sent: Callable[[int], None]
) -> list[LeftOut]:
    """Add files to a draft and give those that were refused.

    `sent` is called after each batch with the number of its files.

    Raises:
        PiqueueApiError: the API does not answer, or the draft accepts no more files.
    """
    refused: list[LeftOut] = []
    pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="upload")
    try:
        batches = list(_batches(pictures, refused))
        answers = pool.map(lambda batch: _send(client, job_id, batch), batches)
        for batch, refused_here in zip(batches, answers, strict=True):
            refused += refused_here
            sent(len(batch))
    except BaseException:
        client.give_up()  # so that no thread waits for the API
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return refused


def size_of(pictures: Iterable[Path]) -> int:
    """Add up the sizes of files, without those that cannot be read."""
    size_bytes = 0
    for path in pictures:
        with suppress(OSError):
            size_bytes += path.stat().st_size
    return size_bytes


def _batches(pictures: Mapping[str, Path], unreadable: list[LeftOut]) -> Iterator[dict[str, Path]]:
    """Split the files into batches of at most BATCH_FILES and, unless it is one, BATCH_BYTES."""
    batch: dict[str, Path] = {}
    batch_bytes = 0
    for item_id, path in pictures.items():
        try:
            size_bytes = path.stat().st_size
        except OSError as error:
            unreadable.append(LeftOut(item_id, str(error.strerror)))
            continue
        if batch and (len(batch) == BATCH_FILES or batch_bytes + size_bytes > BATCH_BYTES):
            yield batch
            batch, batch_bytes = {}, 0
        batch[item_id] = path
        batch_bytes += size_bytes
    if batch:
        yield batch


def _send(client: Client, job_id: str, batch: Mapping[str, Path]) -> list[LeftOut]:
    """Send one batch; gives the files that cannot be read or that the API refuses."""
    readable: dict[str, bytes] = {}
    refused = []
    for item_id, path in batch.items():
        try:
            readable[item_id] = path.read_bytes()
        except OSError as error:
            refused.append(LeftOut(item_id, str(error.strerror)))
    if not readable:
        return refused
    try:
        client.add_files(job_id, readable)
    except PiqueueApiError as error:
        if error.code == "items_refused":
            ids = list(readable)
            refused += [LeftOut(ids[row["index"]], row["detail"]) for row in error.problems]
        elif error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and len(batch) == 1:
            refused += [LeftOut(item_id, error.detail) for item_id in readable]
        else:
            raise
    return refused
