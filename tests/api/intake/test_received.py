"""Receiving bodies: temporary files that cannot be written, and clients that leave."""

import asyncio
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from api.intake.received import MEMORY_BYTES
from api.main import create_app
from scripts.local.stack import Stack
from tests.scripts.processes import eventually
from worker.jobs.settings import load_settings

LARGE_CSV = b"url\n" + b"http://127.0.0.1:9/a.jpg\n" * (MEMORY_BYTES // 10)


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow beyond 100 KB, as if the disk was full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def post(redis_url: str, content: bytes, kind: str) -> httpx2.Response:
    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(create_app(load_settings(redis_url=redis_url)))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/jobs", content=content, headers={"content-type": kind})

    return asyncio.run(send())


@pytest.mark.parametrize(
    "kind", ["text/csv", "application/json", "multipart/form-data; boundary=x"]
)
def test_a_body_that_fits_on_no_disk_is_refused_for_now(redis_url: str, kind: str) -> None:
    with full_disk():
        answer = post(redis_url, LARGE_CSV, kind)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (503, "temporary_folder_unavailable")
    assert tempfile.gettempdir() in problem["detail"]
    assert "TMPDIR" in problem["detail"]
    assert int(answer.headers["retry-after"]) > 0


def test_a_missing_temporary_folder_is_named(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    answer = post(redis_url, LARGE_CSV, "text/csv")
    assert (answer.status_code, answer.json()["code"]) == (503, "temporary_folder_unavailable")
    assert str(folder) in answer.json()["detail"]
    folder.mkdir()
    assert post(redis_url, LARGE_CSV, "text/csv").status_code == 202
    shutil.rmtree(folder)
    assert post(redis_url, b"url\nhttp://127.0.0.1:9/a.jpg\n", "text/csv").status_code == 202


@pytest.mark.parametrize("kind", ["text/csv", "application/json", "multipart/form-data;boundary=x"])
@pytest.mark.parametrize("path", ["/jobs", "/scorefile/", "/jobs/{draft}/retry"])
def test_an_aborted_upload_is_no_error(
    api_without_workers: Stack, log_path: Path, path: str, kind: str
) -> None:
    draft = httpx2.post(f"{api_without_workers.url}/jobs", json={"draft": True}).json()["id"]
    path = path.format(draft=draft)
    before = len(log_path.read_text())
    host, port = api_without_workers.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as peer:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        peer.sendall(f"{head}Content-Length: 100\r\n\r\n".encode() + b"--x\r\n")
    assert eventually(lambda: f'"path": "{path}"' in log_path.read_text()[before:])
    lines = log_path.read_text()[before:]
    assert "error" not in lines.lower(), lines
    assert "Traceback" not in lines


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the log of the API."""
    return tmp_path_factory.mktemp("stack") / "api.log"


@pytest.fixture(scope="module")
def api_without_workers(log_path: Path) -> Iterator[Stack]:
    """Run an API process."""
    with Stack(log_path.parent, workers=0) as running:
        yield running
