"""The fixture that watches what tests of fetching dial."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest


@pytest.fixture(autouse=True)
def dialled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """All addresses that sockets connected to; the test fails if one is not loopback."""
    hosts: list[str] = []
    connect = socket.socket.connect

    def spy(self: socket.socket, address: tuple[str, int]) -> None:
        hosts.append(address[0])
        if ip_address(address[0]).is_loopback:
            return connect(self, address)
        raise PermissionError("a test dialled out")

    monkeypatch.setattr(socket.socket, "connect", spy)
    yield hosts
    assert all(ip_address(host).is_loopback for host in hosts)
