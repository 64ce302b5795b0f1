"""Which addresses the guard allows, without any network."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis.strategies import ip_addresses

from worker.fetching.guard import is_disguised_ipv4, is_public, may_dial, unwrap

PUBLIC = (
    "1.1.1.1",
    "93.184.215.14",
    "100.63.255.255",
    "100.128.0.0",
    "172.32.0.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:82f::200e",
    "::ffff:1.1.1.1",
    "2002:101:101::1",
    "64:ff9b::101:101",
)
NOT_PUBLIC = (
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.9",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::127.0.0.1",  # IPv4-compatible
    "::ffff:127.0.0.1",  # IPv4-mapped
    "::ffff:169.254.169.254",
    "::ffff:0:7f00:1",  # IPv4-translated
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::101:101",  # NAT64 of a network's own
    "100::1",
    "2001::1",  # Teredo
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4
    "2002:a9fe:a9fe::1",
    "2002:6440:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
)
NOT_ONE_ADDRESS = ("", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "1.1.1.1/32")


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_address_may_be_dialled(host: str) -> None:
    assert may_dial(host, ())


@pytest.mark.parametrize("host", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(host: str) -> None:
    assert not may_dial(host, ())


@pytest.mark.parametrize("host", NOT_ONE_ADDRESS)
def test_anything_but_a_plain_address_is_refused(host: str) -> None:
    assert not may_dial(host, (ip_network("0.0.0.0/0"), ip_network("::/0")))


def test_the_allow_list_adds_its_networks_and_no_other() -> None:
    allow = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"), ip_network("::1/128"))
    assert may_dial("10.1.2.3", allow)
    assert may_dial("fd12::1", allow)
    assert may_dial("::1", allow)
    assert may_dial("1.1.1.1", allow)
    assert not may_dial("10.2.0.1", allow)
    assert not may_dial("127.0.0.1", allow)


def test_the_allow_list_applies_to_the_embedded_address() -> None:
    allow = (ip_network("10.1.0.0/16"),)
    assert may_dial("::ffff:10.1.2.3", allow)
    assert may_dial("64:ff9b::a01:203", allow)
    assert not may_dial("::ffff:10.2.0.1", allow)
    assert not may_dial("::ffff:127.0.0.1", (ip_network("::ffff:0:0/96"),))


@given(ip_addresses(v=4))
@settings(deadline=None)
def test_an_embedded_ipv4_address_is_checked_like_a_plain_one(inner: IPv4Address) -> None:
    wrapped = [
        IPv6Address(f"::ffff:{inner}"),
        IPv6Address(int(IPv6Address("64:ff9b::")) + int(inner)),
        IPv6Address((0x2002 << 112) + (int(inner) << 80) + 1),
    ]
    assert [unwrap(address) for address in wrapped] == [inner] * 3
    assert {may_dial(str(address), ()) for address in wrapped} == {may_dial(str(inner), ())}


@given(ip_addresses())
@settings(deadline=None)
def test_nothing_private_is_public(address: IPv4Address | IPv6Address) -> None:
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    assert not (special and is_public(address))


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0X7F000001",
        "0x7f.0.0.1",
        "0x",
        "017700000001",
        "0177.0.0.1",
        "127.0.0.01",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "0",
        "256.256.256.256",
        "1.2.3.4.5",
        "photos.example.0x7f",
    ],
)
def test_ipv4_addresses_in_other_notations_are_recognized(host: str) -> None:
    assert is_disguised_ipv4(host)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "8.8.8.8",
        "example.com",
        "1.example",
        "7-eleven.com",
        "0x7f.example",
        "::1",
        "::ffff:127.0.0.1",
        "abc",
    ],
)
def test_plain_addresses_and_names_are_not_disguised(host: str) -> None:
    assert not is_disguised_ipv4(host)


def test_the_unspecified_and_loopback_addresses_embed_no_ipv4_address() -> None:
    assert unwrap(ip_address("::")) == ip_address("::")
    assert unwrap(ip_address("::1")) == ip_address("::1")
    assert unwrap(ip_address("::127.0.0.1")) == ip_address("127.0.0.1")
