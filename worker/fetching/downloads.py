"""Fetches one URL: host slots, redirects, retries and the deadline over all of them."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import aiohttp
import structlog
from yarl import URL

from model.images.signatures import detect_format
from worker.fetching.budget import ByteBudget, Share
from worker.fetching.host_limits import Host, HostLimits, HostUnavailable
from worker.fetching.session import (
    RETRIES,
    TRANSIENT,
    WRONG_ENCODINGS,
    DownloadError,
    FetchLimits,
    Outcome,
    UrlRefused,
    backoff_s,
    fetch_rejection,
    parse_url,
    redirect_target,
    rejection_from,
    retry_after_s,
)
from worker.jobs.items import Rejection, RejectionCode

REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Statuses by which a host asks all requests to pause, not only this one.
PUSHBACK = frozenset({429, 503})

log = structlog.get_logger()


class Deadline:
    """The time that a download may take; it stands still while this process is the reason."""

    def __init__(self, allowed_s: float) -> None:
        self.timeout = asyncio.timeout(None)
        self._allowed_s = self._paused_with_s = allowed_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the time while the block runs; it starts with the end of the first block."""
        self._paused_with_s = self.remaining_s
        self.timeout.reschedule(None)
        yield
        self.timeout.reschedule(asyncio.get_running_loop().time() + self._paused_with_s)

    @property
    def remaining_s(self) -> float:
        """The seconds that remain."""
        ends_at = self.timeout.when()
        if ends_at is None:
            return self._paused_with_s
        return ends_at - asyncio.get_running_loop().time()

    @property
    def elapsed_ms(self) -> int:
        """The milliseconds used."""
        return round((self._allowed_s - self.remaining_s) * 1000)


class Downloads:
    """The downloads of one event loop, which share a session, the host limits and the budget."""

    def __init__(self, session: aiohttp.ClientSession, limits: FetchLimits) -> None:
        self._session = session
        self._limits = limits
        self._hosts = HostLimits(limits.per_host, limits.timeout_s)
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._budget = ByteBudget(limits.budget_bytes)

    async def fetch(self, text: str, resources: ExitStack) -> Outcome:
        """Fetch a URL; `resources` gets the slot and the bytes of its payload."""
        timeout_s, patience_s = self._limits.timeout_s, self._limits.patience_s
        deadline = Deadline(timeout_s)
        try:
            url = parse_url(text)
        except UrlRefused as error:
            return Outcome(fetch_rejection(RejectionCode.FETCH_BLOCKED_ADDRESS, str(error)), 0)
        host = self._hosts.of(url)
        payload: bytes | Rejection
        try:
            async with asyncio.timeout(patience_s), deadline.timeout:
                payload = await self._get_with_retries(url, host, deadline, resources)
        except TimeoutError:
            waited_s = timeout_s if deadline.timeout.expired() else patience_s
            payload = _unavailable(host.status, f"no complete answer in {waited_s:g} s")
        except HostUnavailable as error:
            silence = f"its host did not answer in {timeout_s:g} s"
            payload = _unavailable(error.status, silence)
        except DownloadError as error:
            payload = error.rejection
        except Exception as error:  # one response must not cancel the other downloads
            log.exception("fetch_failed_unexpectedly", host=url.host)
            detail = f"the answer could not be read ({type(error).__name__})"
            payload = fetch_rejection(RejectionCode.FETCH_CONNECTION, detail)
        return Outcome(payload, deadline.elapsed_ms)

    async def _get_with_retries(
        self, url: URL, host: Host, deadline: Deadline, resources: ExitStack
    ) -> bytes:
        retry = 0
        while True:
            try:
                # The host's slot comes first, so that waiting for a slow host blocks no other.
                async with host.slot(retry=retry > 0):
                    with ExitStack() as held:
                        with deadline.paused():
                            await self._slots.acquire()
                            held.callback(self._slots.release)
                        share = held.enter_context(self._budget.share())
                        payload = await self._get(url, deadline, share)
                        resources.enter_context(held.pop_all())
                        return payload
            except DownloadError as error:
                if not error.rejection.retryable or retry == RETRIES:
                    raise
                pause_s = max(host.pause_s, backoff_s(retry))
                if pause_s >= deadline.remaining_s:
                    raise
            await asyncio.sleep(pause_s)
            retry += 1

    async def _get(self, url: URL, deadline: Deadline, share: Share) -> bytes:
        """Follow redirects here instead of in aiohttp, so that each URL passes `parse_url`."""
        for hop in range(self._limits.max_redirects + 1):
            host = self._hosts.of(url)
            if hop:
                await host.wait_for_pause()
            try:
                answer = await self._request(url, host, deadline, share)
            except DownloadError as error:
                if error.rejection.detail not in WRONG_ENCODINGS:
                    raise
                answer = await self._request(url, host, deadline, share, unpack=False)
                if isinstance(answer, bytes) and detect_format(answer) is None:
                    raise
            if isinstance(answer, bytes):
                return answer
            url = redirect_target(url, answer)
        detail = f"redirected more than {self._limits.max_redirects} times"
        raise DownloadError(fetch_rejection(RejectionCode.FETCH_REDIRECTS, detail))

    async def _request(
        self, url: URL, host: Host, deadline: Deadline, share: Share, *, unpack: bool = True
    ) -> bytes | str:
        """Make one request and record its end at the host; gives the body, or a redirect.

        Without `unpack`, the Content-Encoding of the body is ignored.
        """
        sent_at = asyncio.get_running_loop().time()
        host.asked()
        try:
            async with self._session.get(
                url, allow_redirects=False, auto_decompress=unpack
            ) as response:
                if response.status in PUSHBACK:
                    pause_s = retry_after_s(response.headers.get("Retry-After", ""))
                    host.pushed_back(sent_at, response.status, pause_s)
                    raise _status_error(response.status)
                location = response.headers.get("Location")
                if response.status not in REDIRECTS or location is None:
                    answer: bytes | str = await self._read(response, host, deadline, share)
                else:
                    answer = location
        except DownloadError as error:
            if error.rejection.http_status not in PUSHBACK:
                host.answered()
            raise
        except (aiohttp.ClientError, UnicodeError) as error:
            host.answered()
            raise DownloadError(rejection_from(error)) from error
        except asyncio.CancelledError:
            if deadline.timeout.expired():
                host.timed_out(sent_at)
            raise
        host.answered()
        return answer

    async def _read(
        self, response: aiohttp.ClientResponse, host: Host, deadline: Deadline, share: Share
    ) -> bytes:
        if not 200 <= response.status < 300:
            raise _status_error(response.status)
        max_bytes = self._limits.max_bytes
        size = response.content_length or 0
        parts: list[bytes] = []
        if size <= max_bytes:
            size = 0
            while size <= max_bytes and (part := await response.content.readany()):
                size += len(part)
                if not self._budget.take(share, len(part)):
                    host.heard()
                    with deadline.paused():
                        await self._budget.wait_for(share, len(part))
                    host.asked()
                parts.append(part)
                # Unpacking may give many parts without a wait.
                await asyncio.sleep(0)
        if size > max_bytes:
            detail = f"larger than {max_bytes:,} bytes"
            raise DownloadError(fetch_rejection(RejectionCode.FETCH_TOO_LARGE, detail))
        if not parts:
            # A store whose copies differ may have the bytes at the next request.
            detail = f"answered {response.status} with an empty body"
            raise DownloadError(fetch_rejection(RejectionCode.NOT_AN_IMAGE, detail, retryable=True))
        return b"".join(parts)


def _status_error(status: int) -> DownloadError:
    code, retryable = RejectionCode.FETCH_HTTP_STATUS, status in TRANSIENT
    return DownloadError(
        fetch_rejection(code, f"answered {status}", retryable=retryable, http_status=status)
    )


def _unavailable(status: int | None, silence: str) -> Rejection:
    """Say that the wait is over: `status` is what the host pushed back with, if it did."""
    if status is None:
        return fetch_rejection(RejectionCode.FETCH_TIMEOUT, silence, retryable=True)
    code, detail = RejectionCode.FETCH_HTTP_STATUS, f"its host answers {status} and asks to wait"
    return fetch_rejection(code, detail, retryable=True, http_status=status)
