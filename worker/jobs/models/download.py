"""Downloads a model from a URL with resumption, verifies and unpacks it."""

import fcntl
import hashlib
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import httpx2
import structlog

from worker.jobs.errors import ModelUnavailable
from worker.jobs.models.artifact import CARD_NAME, Artifact
from worker.jobs.models.folder import ModelFolder, new_folder

ATTEMPTS = 5
BACKOFF_S = 0.5  # before the second attempt, doubled for each further one
TIMEOUT_S = 30.0
# A larger download or archive is refused, so that it cannot fill the disk.
MAX_BYTES = 4 * 1024**3

log = structlog.get_logger()


def downloaded(url: str, sha256: str, cache_path: Path) -> ModelFolder:
    """Return a source with the zipped model at `url`; it is downloaded once.

    Raises:
        ModelUnavailable: the download fails, its hash differs, or it is not a zipped artifact.
    """
    folder = cache_path / f"url-{sha256[:16]}"
    with _locked(cache_path):
        if not folder.is_dir():
            zipped = download(url, sha256, cache_path / f"{sha256}.zip")
            with new_folder(folder) as fresh:
                unpack(zipped, fresh)
            zipped.unlink()
    return ModelFolder(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Admit one process of this machine at a time; the lock ends with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def download(url: str, sha256: str, target: Path) -> Path:
    """Download `url` to `target`, resuming an earlier partial download.

    Raises:
        ModelUnavailable: the download fails, or the hash of the file differs.
    """
    part = target.with_name(f"{target.name}.part")
    with part.open("ab+") as file:
        _fill(file, url)
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        part.unlink()
        raise ModelUnavailable(
            f"the file at {_without_query(url)} has the SHA-256 {found}, not the expected one: "
            "correct the expected hash, or find out who changed the file"
        )
    part.rename(target)
    return target


def _fill(file: BinaryIO, url: str) -> None:
    """Download the rest of a file, retrying while the connection breaks."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _append(file, url)
        except httpx2.HTTPStatusError as error:
            status = error.response.status_code
            reason = f"answered {status}"
            if status < 500 and status not in (408, 429):
                break
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
        log.warning("model_download_broken", attempt=attempt, reason=reason)
        if attempt < ATTEMPTS:
            time.sleep(BACKOFF_S * 2 ** (attempt - 1))
    raise ModelUnavailable(
        f"{_without_query(url)} cannot be downloaded ({reason}): correct the URL, or try again"
    )


def _append(file: BinaryIO, url: str) -> None:
    """Request and append the missing bytes."""
    start = file.seek(0, 2)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with httpx2.stream(
        "GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True
    ) as answer:
        if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the file is complete
        answer.raise_for_status()
        if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
            file.truncate(0)  # the server sends the whole file
        for block in answer.iter_raw():
            file.write(block)
            if file.tell() > MAX_BYTES:
                raise ModelUnavailable(
                    f"{_without_query(url)} is larger than {MAX_BYTES:,} bytes: use a smaller model"
                )
    file.flush()


def _without_query(url: str) -> str:
    """The URL without its query, which may hold a signature."""
    return url.partition("?")[0]


def unpack(zipped: Path, folder: Path) -> Artifact:
    """Unpack a zipped artifact to `folder`/<name>/<version>/ and verify its files.

    Raises:
        ModelUnavailable: it is not a zip of one artifact, or the hash of a file differs.
    """
    try:
        with zipfile.ZipFile(zipped) as archive:
            cards = [name for name in archive.namelist() if name.rpartition("/")[2] == CARD_NAME]
            if len(cards) != 1:
                raise ModelUnavailable(
                    f"the zip contains {len(cards)} files {CARD_NAME}, and must contain one"
                )
            prefix = cards[0].removesuffix(CARD_NAME)
            artifact = Artifact.parse(archive.read(cards[0]))
            target = folder / artifact.card.name / artifact.card.version
            target.mkdir(parents=True)
            for name in (CARD_NAME, *(file.path for file in artifact.files)):
                if prefix + name in archive.namelist():
                    _extract(archive, prefix + name, target / name)
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        raise ModelUnavailable(
            f"not a zipped artifact ({error}): zip the folder of one model version"
        ) from None
    artifact.verify(target)
    return artifact


def _extract(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    if archive.getinfo(name).file_size > MAX_BYTES:
        raise ModelUnavailable(f"{name} is larger than {MAX_BYTES:,} bytes: use a smaller model")
    with archive.open(name) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
