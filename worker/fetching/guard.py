"""Which network addresses Piqueue may connect to: public ones, and those its operator names."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all of IPv6 that IANA has given out
_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
# Special purpose by IANA's registries, yet global to `is_global` of one Python or another.
_SPECIAL = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.88.99.0/24"),  # retired 6to4 relays
    IPv6Network("2001::/23"),  # protocol assignments, Teredo among them
    IPv6Network("3fff::/20"),  # documentation
)


def may_dial(host: str, allow_networks: Iterable[Network]) -> bool:
    """Whether a socket may connect to `host`, the numeric address about to be dialled.

    An IPv6 address that carries an IPv4 one is judged by that. `allow_networks` adds to what is
    public. Anything that is not one plain numeric address is refused.
    """
    try:
        address = unwrap(ip_address(host))
    except ValueError:
        return False
    return is_public(address) or any(address in network for network in allow_networks)


def unwrap(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped, IPv4-compatible, 6to4 or NAT64 one, else itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64 or (
        address in _COMPATIBLE and int(address) > 1
    ):  # `::` and `::1` carry none
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

    `2130706433`, `0x7f.1`, `0177.0.0.1` and `127.1` all reach 127.0.0.1 through the C library; no
    honest URL needs them. As in the WHATWG URL standard, a host whose last label is a number is
    meant as an address.
    """
    last_label = host.rstrip(".").rpartition(".")[2]
    if ":" in host or not re.fullmatch(r"\d+|0x[0-9a-f]*", last_label, re.IGNORECASE):
        return False
    try:
        IPv4Address(host)
    except ValueError:
        return True
    return False
