"""Decides which network addresses may be dialled: public ones, and those that settings allow."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all IPv6 addresses that IANA has allocated
_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
# IANA lists them as special purpose, but `is_global` of some Python versions accepts them.
_SPECIAL = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.88.99.0/24"),  # retired 6to4 relays
    IPv6Network("2001::/23"),  # protocol assignments, Teredo among them
    IPv6Network("3fff::/20"),  # documentation
)


def may_dial(host: str, allow_networks: Iterable[Network]) -> bool:
    """Whether a socket may connect to `host`, the numeric address about to be dialled.

    An IPv6 address that embeds an IPv4 one counts as that one. `allow_networks` are allowed in
    addition to public addresses. Anything but a plain numeric address is refused.
    """
    try:
        address = unwrap(ip_address(host))
    except ValueError:
        return False
    return is_public(address) or any(address in network for network in allow_networks)


def unwrap(address: Address) -> Address:
    """Give the IPv4 address in an IPv4-mapped, IPv4-compatible, 6to4 or NAT64 one, else itself."""
    if isinstance(address, IPv4Address):
        return address
    # `::` and `::1` embed no IPv4 address.
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_public(address: Address) -> bool:
    """Whether an unwrapped address belongs to the public internet."""
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _SPECIAL)
    )


def is_disguised_ipv4(host: str) -> bool:
    """Whether `host` is an IPv4 address in any form but four plain decimal numbers.

    The C library resolves `2130706433`, `0x7f.1`, `0177.0.0.1` and `127.1` to 127.0.0.1; no valid
    use needs them. As in the WHATWG URL standard, a host whose last label is a number counts as an
    address.
    """
    last_label = host.rstrip(".").rpartition(".")[2]
    if ":" in host or not re.fullmatch(r"\d+|0x[0-9a-f]*", last_label, re.IGNORECASE):
        return False
    try:
        IPv4Address(host)
    except ValueError:
        return True
    return False
