"""Secrets planted in every route of a real stack are found nowhere but where they belong."""

import asyncio
import os
import subprocess
import sys
import traceback
from pathlib import Path

import httpx2
import pytest
from aiohttp import web
from redis import Redis

from scripts.local.stack import ROOT, Stack
from tests.api.polling import all_results, wait_done
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.worker.fetching.site import Site
from worker.jobs.errors import SettingsInvalid
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.settings import load_settings

SECRET = "pl4nted"
SIGNED = f"X-Amz-Signature={SECRET}1&sig={SECRET}2&token={SECRET}3"


async def _missing(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=403, text=f"<Error>{SIGNED}</Error>", reason=f"{SECRET}4")


async def _elsewhere(_request: web.BaseRequest) -> web.StreamResponse:
    location = f"http://user:{SECRET}5@10.0.0.1/?{SIGNED}"
    return web.Response(status=302, headers={"Location": location})


async def _round(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": f"{request.path}?{SIGNED}"})


async def _torn(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport
    request.transport.abort()
    return web.Response()


async def _silent(_request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def _text(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text=f"{SECRET}6")


async def _picture(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=jpeg(3))


ANSWERS = {
    "/missing": _missing,
    "/elsewhere": _elsewhere,
    "/round": _round,
    "/torn": _torn,
    "/silent": _silent,
    "/text": _text,
    "/picture": _picture,
    "/hook": _missing,
}


def test_planted_secrets_leak_into_no_log_answer_or_redis_key(
    tmp_path: Path,
) -> None:
    with Site(ANSWERS) as site, Stack(tmp_path, env=STACK_ENV) as stack:
        redis = Redis.from_url(stack.redis_url)
        keys = KeyStore(redis)
        owner, other = keys.add("owner"), keys.add("other")
        seen: list[str] = []

        def note(response: httpx2.Response) -> None:
            response.read()
            seen.append(f"{response.headers} {response.text}")

        urls = [site.url(f"{path}?{SIGNED}") for path in ANSWERS]
        urls += [f"http://10.0.0.1/?{SIGNED}", f"http://nowhere.invalid/?{SIGNED}"]
        urls += [f"http://127.0.0.1:9/?{SIGNED}"]
        bad = [f"http://user:{SECRET}8@example.com/", f"ftp://h/?{SIGNED}", f"nonsense {SIGNED}"]
        bad += [f"s3://closed/{SECRET}7"]
        with (
            httpx2.Client(base_url=stack.url, timeout=60, headers=_bearer(owner)) as mine,
            httpx2.Client(base_url=stack.url, timeout=60, headers=_bearer(other)) as theirs,
            httpx2.Client(base_url=stack.url, timeout=60, headers=_bearer(f"{SECRET}9")) as nobody,
        ):
            wanted = {"urls": urls, "webhook_url": site.url(f"/hook?{SIGNED}")}
            job = mine.post("/jobs", json=wanted).json()
            assert "links" in job, str(job)
            done = wait_done(mine, job)
            assert done["counts"]["failed"] == len(urls) - 1, done
            results = all_results(mine, job)
            secret_of_hooks = mine.get("/webhooks/secret").json()["secret"]
            # The owner's own URLs go back to the owner, and there only.
            assert [result["source"].pop("url") for result in results] == urls
            seen.append(str(results))
            for link in ("self", "events"):
                note(mine.get(job["links"][link], params={"results": "false"}))
            for url in bad:
                note(mine.post("/jobs", json={"urls": [url]}))
                note(
                    mine.post(
                        "/jobs", content=f"url\n{url}\n", headers={"Content-Type": "text/csv"}
                    )
                )
            for client in (theirs, nobody):
                for path in (*job["links"].values(), "/jobs", "/limits", "/models"):
                    note(client.get(path.removeprefix(stack.url)))
                note(
                    client.post("/jobs", json={"urls": urls})
                    if client is nobody
                    else client.get("/")
                )
            for path in ("/metrics", "/docs", "/openapi.json", "/readyz", "/healthz", "/nothing"):
                note(nobody.get(path, params={"token": f"{SECRET}10"}))
        kept = {
            str(key): str(redis.dump(key))
            for key in redis.scan_iter("*")
            if job["id"] not in str(key) and "webhook-secret" not in str(key)
        }
        redis.close()
    logs = "\n".join(path.read_text(errors="replace") for path in tmp_path.rglob("*.log*"))
    assert "chunk_committed" in logs
    for secret in (SECRET, owner, other, secret_of_hooks):
        assert secret not in logs
        assert not [text for text in seen if secret in text]
        assert not [key for key, value in kept.items() if secret in key + value]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PIQUEUE_REDIS_URL", f"http://:{SECRET}@127.0.0.1:1/0"),
        ("PIQUEUE_S3_ENDPOINT_URL", f"https://user:{SECRET}@s3.example.com"),
        ("PIQUEUE_STORAGE_URL", f"https://user:{SECRET}@s3.example.com/?{SIGNED}"),
        ("PIQUEUE_MODEL_URL", f"ftp://user:{SECRET}@example.com/?{SIGNED}"),
        ("PIQUEUE_MAX_PIXELS", SECRET),
    ],
)
def test_an_invalid_setting_is_named_without_its_value(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=name) as caught:
        load_settings()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_process_that_cannot_start_does_not_show_its_password() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "api"],
        env={**os.environ, "PIQUEUE_REDIS_URL": f"redis://:{SECRET}@127.0.0.1:port/0"},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode
    assert SECRET not in ended.stdout + ended.stderr


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
