"""The statistics of the hosts of a job's URLs."""

import httpx2
from aiohttp import web

from tests.api.polling import wait_done
from tests.pictures import jpeg
from tests.worker.fetching.site import Site


def test_a_job_has_statistics_by_host_without_any_path(client: httpx2.Client) -> None:
    picture = jpeg(1)

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=picture)

    async def gone(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=410)

    with Site({"/good.jpg": answer, "/gone.jpg": gone}) as site:
        urls = [site.url("/good.jpg?sig=SECRET")] * 30 + [site.url("/text.txt")] * 3
        urls += [site.url("/gone.jpg?sig=SECRET", host="localhost")] * 7
        urls += ["http://192.168.0.1/private.jpg"] * 2
        job = client.post("/jobs", json={"urls": urls}).json()
        done = wait_done(client, job)

    assert [(host["host"], host["ok"], host["other"]) for host in done["hosts"]] == [
        ("localhost", 0, 0),
        ("192.168.0.1", 0, 2),
        ("127.0.0.1", 33, 0),
    ]
    assert [host["http_status"] for host in done["hosts"]] == [{"410": 7}, {}, {}]
    assert [host["timeouts"] for host in done["hosts"]] == [0, 0, 0]
    p95 = [host["p95_ms"] for host in done["hosts"]]
    assert p95[1] is None
    assert p95[0] >= 0
    assert p95[2] >= 0
    assert "SECRET" not in str(done["hosts"])


def test_a_job_of_files_has_no_hosts(client: httpx2.Client) -> None:
    job = client.post("/jobs", files=[("files", ("a.jpg", jpeg(1)))]).json()
    assert wait_done(client, job)["hosts"] == []
