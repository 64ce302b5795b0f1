"""Mistakes on the client's side: told at once by both clients, and no secret is printed."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

import scripts.commands.__main__ as server_commands
from piqueue import AsyncClient, Client, PiqueueApiError, cli
from tests.pictures import jpeg
from tests.worker.fetching.site import Site
from tests.worker.fetching.test_fetcher import CERTIFICATE

SECRET = "pq_pl4nted"
KEYS = {
    f"{SECRET}\r": "a line break",
    f"{SECRET}\n": "a line break",
    f" {SECRET}": "a space",
    f"{SECRET}\N{NO-BREAK SPACE}": "a space",
    f"{SECRET}\0": "a control character",
    f"{SECRET}ü": "a character beyond ASCII",
    f"\N{ZERO WIDTH NO-BREAK SPACE}{SECRET}": "a character beyond ASCII",
}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_no_ascii_word_is_refused_and_not_shown(
    kind: Callable[..., object], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PiqueueApiError, match=f"^the API key contains {KEYS[key]}: ") as given:
        kind("http://127.0.0.1:9", key)
    if "\0" not in key:  # which no variable can contain
        monkeypatch.setenv("PIQUEUE_API_KEY", key)
        with pytest.raises(PiqueueApiError, match=f"^PIQUEUE_API_KEY contains {KEYS[key]}: "):
            kind("http://127.0.0.1:9")
    assert given.value.code == "key_invalid"
    assert SECRET not in str(given.value)


@pytest.mark.parametrize("command", [["jobs"], ["submit", "a.jpg"], ["submit", "-"], ["doctor"]])
def test_every_command_refuses_such_a_key_in_one_line(
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIQUEUE_API_KEY", f"{SECRET}\r")
    run = server_commands.main if command == ["doctor"] else cli.main
    assert run(command) == 1
    told = f"piqueue {command[0]}: PIQUEUE_API_KEY contains a line break: "
    assert capfd.readouterr().err == f"{told}remove it, a key is one word such as pq_…\n"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("localhost:8000", "localhost:8000 is not the address of an API"),
        ("piqueue.example", "piqueue.example is not the address of an API"),
        ("http://", "http:// is not the address of an API"),
        ("http://[::1", r"http://\[::1 is not the address of an API"),
        ("http://a..b", r"http://a..b is not the address of an API"),
        (f"http://{'a' * 64}.example", "is not the address of an API"),
        ("http://h:99999", "http://h:99999 is not the address of an API"),
        ("http://h/?key=1", "is not the address of an API"),
        ("http://127.0.0.1:8000\r", "the address of the API contains a line break"),
        ("http://127.0.0.1 :8000", "the address of the API contains a space"),
        (f"https://user:{SECRET}@h", "contains a user name or password"),
    ],
)
def test_an_address_that_is_none_is_told(address: str, told: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(PiqueueApiError, match=told) as refusal:
            kind(address)
        assert refusal.value.code == "url_invalid"
        assert SECRET not in str(refusal.value)


def failure(url: str, backend: str | None) -> PiqueueApiError:
    """Give the error of a request, which must not be repeated; `backend` is that of AsyncClient."""
    repeated: list[PiqueueApiError] = []

    async def limits_async() -> None:
        async with AsyncClient(url, on_retry=lambda error, _: repeated.append(error)) as client:
            await client.limits()

    def limits() -> None:
        with Client(url, on_retry=lambda error, _: repeated.append(error)) as client:
            client.limits()

    call = partial(anyio.run, limits_async, backend=backend) if backend else limits
    with pytest.raises(PiqueueApiError) as caught:
        call()
    assert repeated == []
    return caught.value


@contextmanager
def banner_server() -> Iterator[str]:
    """Serve another protocol than HTTP; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(30)


@pytest.mark.parametrize("backend", [None, "asyncio", "trio"])
class TestNoSecondAttempt:
    def test_for_an_unknown_host(self, backend: str | None) -> None:
        error = failure("http://piqueue.invalid", backend)
        assert (error.code, error.detail) == (
            "host_unknown",
            "no host named piqueue.invalid is known: check the address",
        )

    def test_for_a_certificate_that_is_not_trusted(self, backend: str | None) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(CERTIFICATE)
        with Site(tls=tls) as site:
            error = failure(site.url(""), backend)
        assert error.code == "tls_refused"
        assert error.detail.startswith(f"the certificate of {site.url('')} is refused (self")

    def test_for_tls_with_a_server_that_speaks_none(self, backend: str | None) -> None:
        with Site() as site:
            error = failure(site.url("").replace("http:", "https:"), backend)
        assert (error.code, "write its address with http://" in error.detail) == (
            "tls_refused",
            True,
        )

    def test_for_a_server_of_another_protocol(self, backend: str | None) -> None:
        with banner_server() as url:
            error = failure(url, backend)
        assert error.code == "not_piqueue"
        assert error.detail == (
            f"what answers at {url} does not speak HTTP: check the address and the port"
        )


def test_a_host_that_was_reached_and_is_unknown_now_is_an_outage() -> None:
    with Client("http://piqueue.invalid", patience_s=0.2) as client:
        client.reached = True
        with pytest.raises(PiqueueApiError) as caught:
            client.limits()
    assert caught.value.code == "unreachable"


def test_a_proxy_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with (
        Client("http://piqueue.example", patience_s=0) as client,
        pytest.raises(PiqueueApiError, match="through the proxy in the environment"),
    ):
        client.limits()


@pytest.mark.parametrize("proxy", ["ftp://proxy.example", "socks5://proxy.example"])
def test_a_proxy_that_cannot_be_used_is_told(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    for kind in (Client, AsyncClient):
        with pytest.raises(PiqueueApiError, match=r"^the proxy in the environment") as refusal:
            kind("http://piqueue.example")
        assert refusal.value.code == "proxy_invalid"
