"""scripts/serve as a person runs it."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from scripts.local.embedded_redis import EmbeddedRedis
from scripts.local.stack import ROOT


def serve(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.local.serve", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_leaves_nothing_running(
    tmp_path: Path, signum: signal.Signals
) -> None:
    with serve("--port", "0", "--data", str(tmp_path)) as process:
        assert process.stdout
        welcome = process.stdout.readline()
        listening = re.search(r"listens on (http://127\.0\.0\.1:\d+); documentation:", welcome)
        assert listening
        url = listening[1]
        assert httpx2.get(f"{url}/docs").status_code == 200
        process.send_signal(signum)
        assert process.wait(60) == 0
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/healthz")
    with EmbeddedRedis(tmp_path / "redis") as server:  # the folder is free
        assert server.pid


def test_a_taken_port_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = serve("--port", str(port), "--data", str(tmp_path / "data"))
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert errors.startswith(f"scripts/serve: cannot listen on 127.0.0.1, port {port}")
    assert not (tmp_path / "data").exists()
