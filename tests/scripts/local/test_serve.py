"""scripts/serve as a person runs it."""

import errno
import os
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


def serve(*arguments: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.local.serve", *arguments],
        cwd=ROOT,
        env=os.environ | env,
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
    taken_by = "in use, perhaps by another Piqueue: choose another with --port"
    assert errors == f"piqueue serve: port {port} is {taken_by}\n"
    assert not (tmp_path / "data").exists()


def test_an_address_of_another_machine_is_reported() -> None:
    process = serve("--host", "192.0.2.1")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    reason = os.strerror(errno.EADDRNOTAVAIL)
    failed = f"cannot listen on 192.0.2.1, port 8000: {reason}"
    assert errors == f"piqueue serve: {failed}: choose another address or port\n"


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_out_of_range_is_a_wrong_option(port: str) -> None:
    process = serve("--port", port)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 64
    assert errors.endswith("error: argument --port: must be 0 to 65535\n")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PIQUEUE_THREDS", "2", "unknown setting PIQUEUE_THREDS: did you mean PIQUEUE_THREADS? "),
        ("PIQUEUE_THREADS", "x", "PIQUEUE_THREADS: must be a whole number"),
    ],
)
def test_a_wrong_setting_is_told_once_and_starts_nothing(
    name: str, value: str, says: str, tmp_path: Path
) -> None:
    process = serve("--port", "0", "--data", str(tmp_path / "data"), **{name: value})
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert errors.startswith(f"piqueue serve: {says}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_other_machines_are_served_after_the_steps_of_the_advice(tmp_path: Path) -> None:
    arguments = ("--port", "0", "--data", str(tmp_path))
    process = serve(*arguments, "--host", "0.0.0.0")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert errors.startswith("piqueue serve: no API key exists, so anyone who reaches 0.0.0.0 ")
    assert errors.count("piqueue keys add NAME") == 1
    assert "restarting" not in errors

    with serve(*arguments, "--host", "127.0.0.1") as process:
        exports = dict(re.findall(r"export (\w+)=(\S+)", _welcome(process)))
        command = [sys.executable, "-m", "scripts.commands", "keys", "add", "alice"]
        key = subprocess.check_output(command, cwd=ROOT, env=os.environ | exports, text=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0

    with serve(*arguments, "--host", "0.0.0.0") as process:
        [url] = re.findall(r"listens on (\S+);", _welcome(process))
        assert httpx2.get(f"{url}/jobs").status_code == 401
        headers = {"Authorization": f"Bearer {key.strip()}"}
        assert httpx2.get(f"{url}/jobs", headers=headers).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def _welcome(process: subprocess.Popen[str]) -> str:
    """What it prints once it serves."""
    assert process.stdout
    lines: list[str] = []
    while not (lines and lines[-1].startswith("Ctrl-C stops it")):
        lines.append(process.stdout.readline())
        assert lines[-1], "it ended"
    return "".join(lines)
