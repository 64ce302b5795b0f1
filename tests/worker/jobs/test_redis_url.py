"""The URL of Redis: what it may say, and that the ledger, the events and Celery read it alike."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from kombu.exceptions import OperationalError
from redis import Redis

from scripts.faults.sentinel import RedisServer
from scripts.local.embedded_redis import EmbeddedRedis
from tests.redis_servers import require_redis_servers
from worker.jobs.errors import LedgerUnavailable
from worker.jobs.ledger.connection import connect, connect_async, ledger_errors
from worker.jobs.redis_url import RedisAddress
from worker.jobs.settings import Settings
from worker.queue import make_celery

PASSWORD = "sec/ret@#"
QUOTED = "sec%2Fret%40%23"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://h", "begin with redis://"),
        ("redis+cluster://h", "begin with redis://"),
        ("redis://:sec#ret@h/0", "percent-encode"),
        ("redis://:sec/ret@h/0", "percent-encoded password"),
        ("redis://:sec?ret=1@h/0", "unknown option"),
        ("redis://[sec@h/0", "percent-encode"),
        ("redis:///0", "must name a host"),
        ("redis://h:port/0", "number as port"),
        ("redis://h/zero", "database by its number"),
        ("redis://h/0/1", "database by its number"),
        ("unix:///run/redis.sock?db=one", "database by its number"),
        ("redis://h,i/0", "names several Sentinels"),
        ("redis+sentinel://h,i", "service"),
        ("redis+sentinel://h/mymaster/x", "database by its number"),
        ("redis://h/0?ssl_ca_certs=/ca.pem", "unknown option"),
        ("rediss://h/0?ssl_cert_reqs=none", "unknown option"),
        (
            "rediss://h/0?ssl_ca_certs=/none.pem",
            "no existing file as ssl_ca_certs: correct the path /none.pem",
        ),
        ("rediss://h/0?ssl_check_hostname=maybe", "true or false"),
    ],
)
def test_an_invalid_url_is_explained_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        RedisAddress.parse(url)
    assert "sec" not in str(raised.value)
    assert "ret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "text", "broker"),
    [
        ("redis://h", "h:6379", "redis://h:6379/0"),
        (
            f"rediss://bob:{QUOTED}@h:7/3",
            "h:7",
            f"redis://bob:{QUOTED}@h:7/3",
        ),
        (f"redis://:{QUOTED}@[::1]:7/3", "::1:7", f"redis://:{QUOTED}@[::1]:7/3"),
        ("unix:///a%20b.sock?db=2", "/a b.sock", "redis+socket:///a%20b.sock?virtual_host=2"),
        (
            f"redis+sentinel://:{QUOTED}@h,i:7/main/2?sentinel_password=x",
            "main of h:26379,i:7",
            f"sentinel://:{QUOTED}@h:26379/2;sentinel://:{QUOTED}@i:7/2",
        ),
    ],
)
def test_a_url_is_shown_without_its_password_and_given_to_celery_with_it(
    url: str, text: str, broker: str
) -> None:
    address = RedisAddress.parse(url)
    assert str(address) == text
    assert ";".join(address.broker_urls()) == broker
    assert QUOTED not in url or address.login["password"] == PASSWORD
    assert PASSWORD not in repr(address)


@dataclass
class TlsServer:
    """A Redis with TLS, and the file of the authority that signed its certificate."""

    redis: RedisServer
    tls_port: int
    ca_path: Path

    def url(self, host: str, options: str) -> str:
        return f"rediss://:{QUOTED}@{host}:{self.tls_port}/0?{options}"


@pytest.fixture(scope="module")
def tls_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[TlsServer]]:
    """Run two servers for `localhost`, each with an authority of its own."""
    require_redis_servers()
    servers = []
    with ExitStack() as running:
        for name in ("ours", "pretender"):
            folder = tmp_path_factory.mktemp(name)
            authority = trustme.CA()
            certificate = authority.issue_cert("localhost")
            certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
            authority.cert_pem.write_to_path(folder / "ca.pem")
            tls_port = RedisServer.free_port()
            options = {
                "tls-port": str(tls_port),
                "tls-cert-file": str(folder / "server.pem"),
                "tls-key-file": str(folder / "server.pem"),
                "tls-ca-cert-file": str(folder / "ca.pem"),
                "tls-auth-clients": "no",
                # As a pretender would, it accepts any password.
                "user": "default on nopass ~* &* +@all",
            }
            redis = running.enter_context(RedisServer(folder / "data", options))
            servers.append(TlsServer(redis, tls_port, folder / "ca.pem"))
        yield servers


def test_a_password_of_a_unix_socket_reaches_every_client(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, Redis.from_url(server.url) as client:
        client.config_set("requirepass", PASSWORD)
        for use in SIDES:
            use(server.url.replace("unix://", f"unix://:{QUOTED}@"))
        with Redis.from_url(server.url, password=PASSWORD) as admin:
            assert admin.get("piqueue:used") == b"3"


def use_ledger(url: str) -> None:
    with connect(url, retries=0) as client, ledger_errors():
        client.incr("piqueue:used")


def use_events(url: str) -> None:
    async def use() -> None:
        async with connect_async(url) as client:
            await client.incr("piqueue:used")

    with ledger_errors():
        asyncio.run(use())


def use_celery(url: str) -> None:
    celery = make_celery(Settings(redis_url=url))
    with celery.connection_for_write() as connection:
        connection.default_channel.client.incr("piqueue:used")


SIDES = [use_ledger, use_events, use_celery]


@pytest.mark.parametrize("use", SIDES)
def test_a_server_whose_certificate_is_right_is_used(
    use: Callable[[str], None], tls_servers: list[TlsServer]
) -> None:
    [ours, _] = tls_servers
    with ours.redis.client() as client:
        client.flushall()
        use(ours.url("localhost", f"ssl_ca_certs={ours.ca_path}"))
        use(ours.url("127.0.0.1", f"ssl_ca_certs={ours.ca_path}&ssl_check_hostname=false"))
        assert client.get("piqueue:used") == b"2"


@pytest.mark.parametrize("use", SIDES)
@pytest.mark.parametrize("wrong", ["another authority", "not of the system", "another name"])
def test_a_server_whose_certificate_is_wrong_gets_nothing(
    wrong: str, use: Callable[[str], None], tls_servers: list[TlsServer]
) -> None:
    [ours, pretender] = tls_servers
    url = {
        "another authority": pretender.url("localhost", f"ssl_ca_certs={ours.ca_path}"),
        "not of the system": ours.url("localhost", ""),
        "another name": ours.url("127.0.0.1", f"ssl_ca_certs={ours.ca_path}"),
    }[wrong]
    for server in tls_servers:
        with server.redis.client() as client:
            client.flushall()
            client.config_resetstat()
    with pytest.raises((LedgerUnavailable, OperationalError), match="certificate"):
        use(url)
    for server in tls_servers:
        with server.redis.client() as client:
            assert client.dbsize() == 0
            assert commands(client) <= {"config|resetstat", "dbsize", "info"}


def commands(client: Redis) -> set[str]:
    """Name the commands that the server received since its statistics were reset."""
    received = client.info("commandstats")
    assert isinstance(received, dict)
    return {name.removeprefix("cmdstat_") for name in received} - {"hello", "client|setinfo"}


def test_the_authorities_of_the_system_are_trusted(
    tls_servers: list[TlsServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    [ours, _] = tls_servers
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.ca_path))
    for use in SIDES:
        use(ours.url("localhost", ""))


def test_sentinels_and_the_primary_that_they_name_are_used_with_tls(
    tls_servers: list[TlsServer], tmp_path: Path
) -> None:
    [ours, pretender] = tls_servers
    tls_port = RedisServer.free_port()
    options = {
        "tls-port": str(tls_port),
        "tls-replication": "yes",
        "tls-cert-file": str(ours.ca_path.with_name("server.pem")),
        "tls-key-file": str(ours.ca_path.with_name("server.pem")),
        "tls-ca-cert-file": str(ours.ca_path),
        "tls-auth-clients": "no",
        "sentinel monitor main": f"127.0.0.1 {ours.tls_port} 1",
    }
    url = f"rediss+sentinel://:{QUOTED}@localhost:{tls_port}/main/0?ssl_check_hostname=false"
    with RedisServer(tmp_path / "sentinel", options, sentinel=True), ours.redis.client() as client:
        client.flushall()
        for use in SIDES:
            use(f"{url}&ssl_ca_certs={ours.ca_path}")
            with pytest.raises((LedgerUnavailable, OperationalError)):
                use(f"{url}&ssl_ca_certs={pretender.ca_path}")
        assert client.get("piqueue:used") == b"3"
