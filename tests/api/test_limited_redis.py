"""A Redis whose user may do what Piqueue needs, and nothing else."""

from pathlib import Path

import httpx2

from piqueue import Client
from scripts.faults.sentinel import RedisServer
from scripts.local.stack import ROOT, Stack
from tests.redis_servers import require_redis_servers
from tests.scripts.processes import eventually
from worker.jobs.ledger.server import COMMANDS

SAMPLE = ROOT / "scripts" / "samples" / "fig.jpg"
# What Piqueue does without.
OPTIONAL = {"info", "config|get", "client|setinfo"}


def test_a_user_of_the_listed_commands_and_of_piqueues_keys_is_enough(tmp_path: Path) -> None:
    require_redis_servers()
    needed = {"multi", "exec", "watch", "discard"}
    for command in COMMANDS:
        words = command.lower().split()
        has_subcommand = words[0] in ("client", "function", "script")
        needed.add("|".join(words[:2]) if has_subcommand else words[0])
    rules = ["~piqueue:*", "&piqueue:*", *(f"+{command}" for command in sorted(needed))]
    with RedisServer(tmp_path / "server") as server, server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "bob", "on", ">pass", *rules)
        url = f"redis://bob:pass@127.0.0.1:{server.port}/0"
        env = {"PIQUEUE_WEBHOOK_RETRY_S": "0.2"}
        with Stack(tmp_path, redis_url=url, env=env) as stack:
            use_everything(stack.url)
        for log in ("api.log", "worker-1.log"):
            assert '"event": "redis_unsafe"' in (tmp_path / log).read_text()
        denied = {entry["object"] for entry in admin.acl_log()}
        assert "info" in denied
        assert denied <= OPTIONAL
        assert all(key.startswith(b"piqueue:") for key in admin.scan_iter())


def use_everything(api: str) -> None:
    """Use all that stores something or reads it."""
    hooked = {"urls": ["http://127.0.0.1:9/"], "webhook_url": "https://127.0.0.1:9/"}
    item = {"items": [{"id": "a", "url": "http://127.0.0.1:9/"}]}
    picture = {"file": ("fig.jpg", SAMPLE.read_bytes())}
    with Client(api, timeout_s=30) as client, httpx2.Client(base_url=api, timeout=30) as http:
        job = client.wait(client.submit_files({"fig": SAMPLE}).id)
        assert job.counts.succeeded == 1
        assert http.post("/scorefile/", files=picture).is_success
        failed = client.wait(http.post("/jobs", json=hooked).json()["id"])
        assert failed.counts.failed == 1
        assert client.wait(client.retry(failed.id).id).counts.failed == 1
        draft = http.post("/jobs", json={"draft": True}, headers={"Idempotency-Key": "k"}).json()
        assert http.post(f"/jobs/{draft['id']}/items", json=item).is_success
        assert http.post(f"/jobs/{draft['id']}/submit").is_success
        webhook = f"/jobs/{failed.id}/webhook"
        assert eventually(lambda: len(http.get(webhook).json()["attempts"]) > 1)
        for path in ("/jobs", "/limits", "/metrics", "/models", f"/jobs/{job.id}/results"):
            assert http.get(path).is_success, path
        [warning] = http.get("/readyz").json()["warnings"]
        assert "neither INFO nor CONFIG GET" in warning
        client.cancel(client.submit_urls(["http://127.0.0.1:9/"] * 1000).id)
        client.delete(job.id)
