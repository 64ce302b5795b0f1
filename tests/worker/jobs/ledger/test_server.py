"""What Piqueue says of a Redis that it cannot use, and of one that can lose jobs."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from scripts.doctor.check_result import Level
from scripts.doctor.redis import check_redis
from scripts.faults.sentinel import RedisServer
from scripts.local.stack import ROOT
from tests.documents import block_of
from tests.redis_servers import require_redis_servers
from worker.jobs.errors import LedgerUnavailable, SettingsInvalid
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.server import COMMANDS
from worker.jobs.ledger.server import RedisServer as Server
from worker.jobs.settings import Settings

RULES = ("~piqueue:*", "&piqueue:*", "+@all", "-@admin", "-@dangerous")
OPTIONAL = ("+info", "+config|get")


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    require_redis_servers()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Run a server whose users the tests limit."""
    with RedisServer(tmp_path_factory.mktemp("limited") / "redis") as running:
        yield running


@contextmanager
def limited(server: RedisServer, *rules: str) -> Iterator[Redis]:
    """Give a client of a user with these rules alone."""
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "bob", "reset", "on", ">pass", *rules)
    with connect(url_of(server), retries=0) as client:
        yield client


def url_of(server: RedisServer) -> str:
    return f"redis://bob:pass@127.0.0.1:{server.port}/0"


def name_of(command: str) -> str:
    words = command.split()
    return " ".join(words[:2]) if words[0] in ("CLIENT", "FUNCTION", "SCRIPT") else words[0]


def test_a_user_with_the_documented_rights_is_enough(server: RedisServer) -> None:
    command = block_of("OPERATIONS.md", "ACL SETUSER").text.split()
    assert [*RULES, *OPTIONAL] == command[-len(RULES + OPTIONAL) :]
    with limited(server, *RULES) as client:
        Server(client).require_usable()
    with server.client() as admin:
        admin.execute_command(*command)
        url = f"redis://piqueue:PASSWORD@127.0.0.1:{server.port}/0"
        with connect(url, retries=0) as client:
            Server(client).require_usable()
            assert client.info("memory")
        assert admin.dbsize() == 0, "asking runs no command"


@pytest.mark.parametrize("command", [*COMMANDS, "MULTI"])
def test_each_command_that_is_refused_ends_the_start_with_its_name(
    command: str, server: RedisServer
) -> None:
    rule = name_of(command).replace(" ", "|").lower()
    with (
        limited(server, *RULES, f"-{rule}") as client,
        pytest.raises(SettingsInvalid, match=f"may not run {name_of(command)} on"),
    ):
        Server(client).require_usable()


def test_other_keys_and_channels_are_not_enough(server: RedisServer) -> None:
    with limited(server, *RULES, "resetkeys", "~other:*") as client:
        refused = Server(client).refused_commands()
        assert {"SET", "BRPOP", "EXISTS"} < set(refused)
        assert not {"TIME", "PUBLISH"} & set(refused)
    with limited(server, *RULES, "resetchannels", "&other:*") as client:
        assert Server(client).refused_commands() == ["PUBLISH", "SUBSCRIBE"]


def test_a_command_that_is_renamed_is_refused(tmp_path: Path) -> None:
    renamed = {"rename-command": 'FCALL ""'}
    with RedisServer(tmp_path / "redis", renamed) as server, server.client() as client:
        assert Server(client).refused_commands() == ["FCALL"]


def test_a_full_redis_refuses_no_command(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", {"maxmemory": "1kb"}) as server, server.client() as client:
        Server(client).require_usable()


def test_every_command_in_the_code_is_asked_for_and_no_other() -> None:
    used: set[str] = set()
    for path in [*(ROOT / "worker").rglob("*.py"), *(ROOT / "worker").rglob("*.lua")]:
        text = path.read_text()
        used |= {name.upper() for name in re.findall(r"redis\.p?call\('(\w+)'", text)}
        used |= {name.upper() for name in re.findall(r"(?:self\._redis|\bpipe)\.([a-z]+)\(", text)}
    used = {{"DELETE": "DEL"}.get(name, name) for name in used}
    of_libraries = {"BRPOP", "CLIENT", "EVALSHA", "FUNCTION", "PING", "RPOP", "SCRIPT", "SUBSCRIBE"}
    not_commands = {"PIPELINE", "EXECUTE", "PUBSUB", "INFO"}
    asked_for = {command.split()[0] for command in COMMANDS}
    assert (used | of_libraries | {"UNWATCH"}) - not_commands == asked_for


def start(module: str, url: str) -> subprocess.CompletedProcess[str]:
    """Start the API or a worker, which is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={"PIQUEUE_REDIS_URL": url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("module", ["api", "worker"])
def test_a_redis_that_cannot_be_used_ends_the_start_with_a_sentence(
    module: str, server: RedisServer, tmp_path: Path
) -> None:
    with limited(server, *RULES, "-fcall"):
        ended = start(module, url_of(server))
    assert ended.returncode == 1
    assert f"piqueue {module}: PIQUEUE_REDIS_URL: its user may not run FCALL" in ended.stderr
    assert "Traceback" not in ended.stderr
    wrong = start(module, url_of(server).replace("pass", "word"))
    assert wrong.returncode == 1
    assert "PIQUEUE_REDIS_URL: Redis refuses its user" in wrong.stderr
    with RedisServer(tmp_path / "cluster", {"cluster-enabled": "yes"}) as cluster:
        ended = start(module, cluster.url)
    assert ended.returncode == 1
    assert "names a Redis Cluster, which Piqueue cannot use" in ended.stderr


def test_a_sentinel_is_not_taken_for_a_redis(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path / "sentinel", sentinel=True) as sentinel,
        sentinel.client() as client,
        pytest.raises(SettingsInvalid, match=r"names a Sentinel: write redis\+sentinel://"),
    ):
        Server(client).require_usable()


def test_what_the_configuration_can_lose_is_said(server: RedisServer) -> None:
    eviction = "a full Redis deletes jobs: set maxmemory-policy noeviction instead of allkeys-lru"
    append_only = "a restart of Redis loses jobs: set appendonly yes"
    with server.client() as admin:
        assert Server(admin).warnings() == []
        admin.config_set("maxmemory-policy", "allkeys-lru")
        admin.config_set("appendonly", "no")
        for rights in (OPTIONAL, ("+info",), ("+config|get",)):
            with limited(server, *RULES, *rights) as client:
                assert Server(client).warnings() == [eviction, append_only]
        with limited(server, *RULES) as client:
            [unknown] = Server(client).warnings()
        assert "neither INFO nor CONFIG GET" in unknown
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("appendonly", "yes")


def test_a_user_who_may_not_run_info_is_served_and_told_so(server: RedisServer) -> None:
    with limited(server, *RULES) as client:
        assert Load(client).memory_share() == 0
        results = {one.check: one for one in check_redis(Settings(redis_url=url_of(server)))}
    assert results["redis"].level is Level.OK
    assert results["redis permissions"].level is Level.WARNING
    assert "INFO is refused" in results["redis permissions"].text
    for check in ("redis eviction", "redis persistence"):
        assert results[check].text == "unknown: INFO and CONFIG are refused"
    with limited(server, *RULES, "+config|get"):
        results = {one.check: one for one in check_redis(Settings(redis_url=url_of(server)))}
    assert results["redis eviction"].level is results["redis persistence"].level is Level.OK


def test_a_permission_that_is_lost_later_is_unavailable_and_named(server: RedisServer) -> None:
    with (
        limited(server, *RULES, "-hmget") as client,
        pytest.raises(LedgerUnavailable, match=r"refuses a command to its user: .*hmget"),
    ):
        Load(client).backlog()
