"""The OpenAPI document: complete, and true of the running service."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2

from scripts.local.stack import Stack
from tests.api.polling import wait_done
from tests.conftest import STACK_ENV
from tests.pictures import jpeg

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
BUDGET_S = 60
# Jobs that are there, so that more than the 404 of each route is seen.
CONFIG = """
[parameters]
"path.job_id" = ["{job}", "{draft}"]

[[operations]]
include-name = "DELETE /jobs/{{job_id}}"
parameters = {{ "path.job_id" = "job_gone" }}
"""


def answers(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path} {status} {kind}", media)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
        for kind, media in answer.get("content", {}).items()
    ]


def test_every_answer_has_an_example(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    found = answers(document)
    assert len(found) > 50
    without = [name for name, media in found if not {"example", "examples"} & set(media)]
    # These are no text.
    assert without == [
        "get /jobs/{job_id}/results 200 application/vnd.apache.parquet",
        "get /jobs/{job_id}/items/{index}/thumbnail 200 image/webp",
    ]


def test_every_error_is_documented_as_a_problem(client: httpx2.Client) -> None:
    for name, media in answers(client.get("/openapi.json").json()):
        if int(name.split()[2]) >= 400:
            assert name.endswith("application/problem+json"), name
            assert media["schema"]["$ref"].endswith("/Problem")


def test_no_request_gets_a_server_error_or_an_undocumented_answer(
    tmp_path: Path,
) -> None:
    files = [("files", (f"{seed}.jpg", jpeg(seed))) for seed in range(3)]
    # A stack of its own: the jobs it makes up would keep that of the other tests busy.
    with Stack(tmp_path / "stack", env=STACK_ENV) as stack:
        with httpx2.Client(base_url=stack.url, timeout=60) as client:
            job = wait_done(client, client.post("/jobs", files=files).json())
            draft = client.post("/jobs", json={"draft": True}).json()
        config = CONFIG.format(job=job["id"], draft=draft["id"])
        (tmp_path / "schemathesis.toml").write_text(config)
        run = schemathesis(stack.url, tmp_path)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


def schemathesis(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Send requests of all kinds for a minute."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
        *("--max-time", str(BUDGET_S), "--max-examples", "20", "--seed", "1"),
        # Longer than a request may let the API wait for a draft.
        *("--request-timeout", "80", "--suppress-health-check", "all", "--no-shrink"),
        *("--exclude-path-regex", "events$"),
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=170)
