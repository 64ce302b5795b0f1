"""What both clients share: settings, the check of answers, the rules for another attempt."""

import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx2
import msgspec

from piqueue.errors import PiqueueApiError
from piqueue.local_mistakes import check_key, check_url, local_mistake
from piqueue.requests import Answer, Request

FIRST_CONTACT_S = 10.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_START = "start Piqueue with `piqueue serve` (in a clone: `scripts/serve`)"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

OnRetry = Callable[[PiqueueApiError, float], None]


@dataclass(frozen=True)
class ClientSettings:
    """The address of the API and the key of the caller."""

    url: str
    api_key: str | None = field(repr=False)

    @classmethod
    def load(cls, url: str | None = None, api_key: str | None = None) -> Self:
        """What is given, else PIQUEUE_URL and PIQUEUE_API_KEY, else the address of a local API.

        Raises:
            PiqueueApiError: the address is not a URL of HTTP, or the key is not one ASCII word.
        """
        source = "the address of the API" if url else "PIQUEUE_URL"
        url = url or os.environ.get("PIQUEUE_URL") or "http://127.0.0.1:8000"
        check_url(url, source)
        source = "the API key" if api_key else "PIQUEUE_API_KEY"
        api_key = api_key or os.environ.get("PIQUEUE_API_KEY") or None
        if api_key:
            check_key(api_key, source)
        return cls(url.rstrip("/"), api_key)


class Connection(ABC):
    """The base of Client and AsyncClient."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 60,
        patience_s: float = 300,
        on_retry: OnRetry | None = None,
    ) -> None:
        settings = ClientSettings.load(url, api_key)
        self.url = settings.url
        self.patience_s = patience_s
        self.on_retry = on_retry
        self.reached = False
        self.is_local = urlsplit(self.url).hostname in _LOOPBACK
        self.has_proxy = not self.is_local and bool(getproxies())  # no proxy leads back here
        try:
            self._open(
                base_url=self.url,
                headers={"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {},
                timeout=timeout_s,
                trust_env=not self.is_local,
            )
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            detail = f"the proxy in the environment cannot be used ({error}): correct or unset it"
            raise PiqueueApiError("proxy_invalid", detail) from None

    @abstractmethod
    def _open(self, **options: Any) -> None:
        """Create the HTTP client with these options."""

    def _check(self, response: httpx2.Response) -> None:
        self.reached = True
        if not response.is_success:
            raise PiqueueApiError.of(response)

    def _decode(self, request: Request[Answer], response: httpx2.Response) -> Answer:
        self._check(response)
        try:
            return msgspec.json.decode(response.content or b"null", type=request.answer)
        except msgspec.DecodeError:
            detail = f"what answers at {self.url} is no Piqueue of this version: check the address"
            raise PiqueueApiError("not_piqueue", detail, response.status_code) from None


class Attempts:
    """The attempts at one request: whether another one follows, and when."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pause_s = _FIRST_PAUSE_S
        self._give_up_at: float | None = None

    def failed(
        self, error: httpx2.TransportError | PiqueueApiError
    ) -> tuple[PiqueueApiError, float]:
        """Give the error of a failed attempt and the seconds to wait before the next one.

        Raises:
            PiqueueApiError: no attempt can succeed, or patience has run out.
        """
        connection = self._connection
        patience_s, again = connection.patience_s, True
        if isinstance(error, PiqueueApiError):
            failure, again = error, error.transient
        elif not connection.reached and (mistake := local_mistake(error, connection.url)):
            failure, again = mistake, False
        else:
            proxy = " through the proxy in the environment" if connection.has_proxy else ""
            reason = str(error) or type(error).__name__
            detail = f"no answer from {connection.url}{proxy} ({reason})"
            never_sent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            if never_sent and not connection.reached:
                patience_s = min(patience_s, FIRST_CONTACT_S)
                advice = _START if connection.is_local else "check that Piqueue runs there"
                detail += f": {advice}, or set PIQUEUE_URL to its address"
            failure = PiqueueApiError("unreachable", detail)
        wait_s = failure.retry_after_s
        if wait_s is None:
            wait_s = self._pause_s * random.uniform(0.5, 1)  # noqa: S311
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._give_up_at = self._give_up_at or time.monotonic() + patience_s
        if not again or time.monotonic() + wait_s > self._give_up_at:
            raise failure from None
        if connection.on_retry:
            connection.on_retry(failure, wait_s)
        return failure, wait_s
