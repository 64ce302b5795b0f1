"""Wrong API keys, counted by the address that sends them."""

import math
import time
from collections import OrderedDict
from ipaddress import ip_address, ip_network

import structlog

WINDOW_S = 60
MOST_IN_WINDOW = 20
MOST_ADDRESSES = 10_000

log = structlog.get_logger()


class WrongKeys:
    """How many wrong keys each address sent within a minute, as seen by this process.

    It remembers at most `MOST_ADDRESSES`, and forgets the one that was silent the longest.
    """

    def __init__(self) -> None:
        # The beginning of the minute, and the keys since then.
        self._sent: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, address: str) -> int:
        """Count a wrong key; gives the seconds to wait if the address sent too many, else 0."""
        address, now = _network(address), time.monotonic()
        began, count = self._sent.pop(address, (now, 0))
        if now - began >= WINDOW_S:
            began, count = now, 0
        self._sent[address] = (began, count + 1)
        if len(self._sent) > MOST_ADDRESSES:
            self._sent.popitem(last=False)
        if count == MOST_IN_WINDOW:
            log.warning("wrong_keys", address=address)
        return math.ceil(began + WINDOW_S - now) if count >= MOST_IN_WINDOW else 0


def _network(address: str) -> str:
    """The network that one sender has to itself: of IPv6, 64 bits."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((address, 64), strict=False)) if ip.version == 6 else address
