"""A model from a URL: complete and verified, or absent; broken downloads resume."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
from aiohttp import web

from tests.worker.fetching.site import Answer, Site
from tests.worker.registry import add_version
from worker.jobs.errors import ModelUnavailable, SettingsInvalid
from worker.jobs.models import download
from worker.jobs.models.configured import open_catalog
from worker.jobs.models.download import downloaded
from worker.jobs.settings import load_settings


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_S", 0.01)


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = add_version(tmp_path_factory.mktemp("made"), "7")
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"places-7/{path.name}")
    return target.getvalue()


def sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def giving(payload: bytes, cuts: int = 0, ranges: bool = True) -> Answer:
    """Answer with `payload`, the first `cuts` times breaking the connection after a part of it."""
    left = [cuts]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked = request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and ranges else 0
        if start >= len(payload):
            return web.Response(status=416)
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(payload) - start
        await response.prepare(request)
        if left[0]:
            left[0] -= 1
            await response.write(payload[start : start + len(payload) // 3])
            assert request.transport
            request.transport.close()
        else:
            await response.write(payload[start:])
        return response

    return answer


def test_a_model_is_downloaded_once_and_can_be_named(tmp_path: Path, zipped: bytes) -> None:
    with Site({"/places.zip": giving(zipped)}) as site:
        for _ in range(2):
            settings = load_settings(
                model_url=site.url("/places.zip?signature=secret"),
                model_sha256=sha256(zipped),
                models_cache_path=tmp_path,
            )
            catalog = open_catalog(settings)
        assert len(site.requests) == 1
    card = catalog.resolve("places")
    assert card.version == "7"
    folder = catalog.fetch(card.ref)
    assert sha256((folder / "head.npz").read_bytes()) == card.sha256
    assert sha256((folder / "model.tflite").read_bytes()) == card.backbone
    assert {path.name for path in tmp_path.iterdir()} == {".lock", f"url-{sha256(zipped)[:16]}"}


def test_a_broken_download_resumes(tmp_path: Path, zipped: bytes) -> None:
    with Site({"/places.zip": giving(zipped, cuts=2)}) as site:
        downloaded(site.url("/places.zip"), sha256(zipped), tmp_path)
        asked = [seen.headers.get("Range") for seen in site.requests]
    third = len(zipped) // 3
    assert asked == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_a_server_without_ranges_sends_the_whole_file_again(tmp_path: Path, zipped: bytes) -> None:
    with Site({"/places.zip": giving(zipped, cuts=1, ranges=False)}) as site:
        (artifact,) = downloaded(site.url("/places.zip"), sha256(zipped), tmp_path).artifacts()
        assert len(site.requests) == 2
    assert artifact.card.version == "7"


def test_a_partial_download_of_another_process_is_resumed(tmp_path: Path, zipped: bytes) -> None:
    part = tmp_path / f"{sha256(zipped)}.zip.part"
    part.write_bytes(zipped[:1000])
    with Site({"/places.zip": giving(zipped)}) as site:
        downloaded(site.url("/places.zip"), sha256(zipped), tmp_path)
        assert site.requests[0].headers["Range"] == "bytes=1000-"


def test_a_complete_partial_file_is_used(tmp_path: Path, zipped: bytes) -> None:
    (tmp_path / f"{sha256(zipped)}.zip.part").write_bytes(zipped)
    with Site({"/places.zip": giving(zipped)}) as site:
        (artifact,) = downloaded(site.url("/places.zip"), sha256(zipped), tmp_path).artifacts()
    assert artifact.card.name == "places"


def test_a_file_with_another_hash_is_refused_and_deleted(tmp_path: Path, zipped: bytes) -> None:
    with (
        Site({"/places.zip": giving(zipped)}) as site,
        pytest.raises(ModelUnavailable, match=f"has the SHA-256 {sha256(zipped)}, not") as told,
    ):
        downloaded(site.url("/places.zip?signature=secret"), "0" * 64, tmp_path)
    assert "secret" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_connection_that_always_breaks_is_given_up(tmp_path: Path, zipped: bytes) -> None:
    many = giving(zipped, cuts=99, ranges=False)
    with (
        Site({"/places.zip": many}) as site,
        pytest.raises(ModelUnavailable, match=r"places\.zip cannot be downloaded"),
    ):
        downloaded(site.url("/places.zip"), sha256(zipped), tmp_path)
    assert len(site.requests) == download.ATTEMPTS


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, download.ATTEMPTS)])
def test_a_refusal_is_final_and_a_server_error_is_retried(
    tmp_path: Path, status: int, requests: int
) -> None:
    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status)

    with (
        Site({"/places.zip": refuse}) as site,
        pytest.raises(ModelUnavailable, match=f"answered {status}"),
    ):
        downloaded(site.url("/places.zip"), "0" * 64, tmp_path)
    assert len(site.requests) == requests


def repacked(zipped: bytes, **files: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(zipped)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, files.get(name.partition("/")[2].replace(".", "_"), old.read(name)))
    return target.getvalue()


def test_a_zip_whose_files_are_not_those_of_its_card_is_refused(
    tmp_path: Path, zipped: bytes
) -> None:
    wrong = repacked(zipped, model_tflite=b"something else")
    with (
        Site({"/places.zip": giving(wrong)}) as site,
        pytest.raises(ModelUnavailable, match=r"model\.tflite of places@7 is missing or differs"),
    ):
        downloaded(site.url("/places.zip"), sha256(wrong), tmp_path)


def test_a_card_cannot_name_files_outside_its_folder(tmp_path: Path, zipped: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        card = json.loads(archive.read("places-7/card.json"))
    card["files"]["litert"]["path"] = "../model.tflite"
    wrong = repacked(zipped, card_json=json.dumps(card).encode())
    with (
        Site({"/places.zip": giving(wrong)}) as site,
        pytest.raises(ModelUnavailable, match="not a zipped artifact"),
    ):
        downloaded(site.url("/places.zip"), sha256(wrong), tmp_path)


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    page = b"<html>sign in</html>"
    with (
        Site({"/places.zip": giving(page)}) as site,
        pytest.raises(ModelUnavailable, match="not a zipped artifact"),
    ):
        downloaded(site.url("/places.zip"), sha256(page), tmp_path)


def test_a_model_url_without_its_hash_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="PIQUEUE_MODEL_SHA256"):
        load_settings(model_url="https://example.com/places.zip")
