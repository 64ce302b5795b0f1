"""One URL to its bytes: turns, places, redirects, retries and the deadline over all of them."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import aiohttp
from yarl import URL

from worker.fetching.budget import ByteBudget, Share
from worker.fetching.host_limits import Host, Hosts, NoTurn
from worker.fetching.session import (
    RETRIES,
    TRANSIENT,
    DownloadFailure,
    FetchCode,
    Fetched,
    FetchFailed,
    FetchLimits,
    backoff_s,
    explained,
    redirected,
    retry_after_s,
)

REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Statuses that ask for a pause of everyone, not of this one request alone.
PUSHED_BACK = frozenset({429, 503})


class Clock:
    """The time a download may still take: it goes while others can be blamed, and not for us."""

    def __init__(self, allowed_s: float) -> None:
        self.timer = asyncio.timeout(None)
        self._allowed_s = self._left_s = allowed_s
        self._since: float | None = None

    def start(self) -> None:
        """Let it go on."""
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
            self.timer.reschedule(self._since + self._left_s)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it while the block runs; it goes on, or begins, after it."""
        if self._since is not None:
            self.timer.reschedule(None)
            self._left_s, self._since = self.left_s, None
        yield
        self.start()

    @property
    def left_s(self) -> float:
        """The seconds left."""
        if self._since is None:
            return self._left_s
        return self._left_s - (asyncio.get_running_loop().time() - self._since)

    @property
    def elapsed_ms(self) -> int:
        """The milliseconds gone."""
        return round((self._allowed_s - self.left_s) * 1000)


class Downloads:
    """The downloads of one event loop, which share a session, the places and the bytes."""

    def __init__(self, session: aiohttp.ClientSession, limits: FetchLimits) -> None:
        self._session = session
        self._limits = limits
        self._hosts = Hosts(limits.per_host, limits.timeout_s)
        self._places = asyncio.Semaphore(limits.concurrency)
        self._budget = ByteBudget(limits.budget_bytes)

    async def fetch(self, url: URL, kept: ExitStack) -> Fetched | FetchFailed:
        """Fetch a URL that `parse_url` gave; `kept` holds the place and the bytes of a payload."""
        clock = Clock(self._limits.timeout_s)
        host = self._hosts.of(url)
        try:
            async with asyncio.timeout(self._limits.patience_s), clock.timer:
                payload = await self._persist(url, host, clock, kept)
                return Fetched(payload, clock.elapsed_ms)
        except TimeoutError:
            waited = self._limits.timeout_s if clock.timer.expired() else self._limits.patience_s
            failure = _gave_up(host.status, f"no complete answer in {waited:g} s")
        except NoTurn as error:
            silence = f"its host did not answer in {self._limits.timeout_s:g} s"
            failure = _gave_up(error.status, silence)
        except DownloadFailure as error:
            failure = error
        return FetchFailed(
            failure.code, failure.retryable, failure.detail, clock.elapsed_ms, failure.http_status
        )

    async def _persist(self, url: URL, host: Host, clock: Clock, kept: ExitStack) -> bytes:
        """Try again what may go better."""
        retry = 0
        while True:
            try:
                # The host comes first: those who wait for a slow one hold no place meanwhile.
                async with host.turn(again=retry > 0):
                    with ExitStack() as held:
                        with clock.stopped():
                            await self._places.acquire()
                            held.callback(self._places.release)
                        share = held.enter_context(self._budget.share())
                        payload = await self._get(url, clock, share)
                        kept.enter_context(held.pop_all())
                        return payload
            except DownloadFailure as failure:
                if not failure.retryable or retry == RETRIES:
                    raise
                pause_s = max(host.pause_s, backoff_s(retry))
                if pause_s >= clock.left_s:
                    raise
            await asyncio.sleep(pause_s)
            retry += 1

    async def _get(self, url: URL, clock: Clock, share: Share) -> bytes:
        """Follow redirects by hand, so that each URL passes `parse_url`."""
        for hop in range(self._limits.max_redirects + 1):
            host = self._hosts.of(url)
            if hop:
                await host.opened()
            answer = await self._ask(url, host, clock, share)
            if isinstance(answer, bytes):
                return answer
            url = redirected(url, answer)
        raise DownloadFailure(
            FetchCode.REDIRECTS, f"redirected more than {self._limits.max_redirects} times"
        )

    async def _ask(self, url: URL, host: Host, clock: Clock, share: Share) -> bytes | str:
        """Make one request, and tell the host how it went; gives the body, or where to go on."""
        asked = asyncio.get_running_loop().time()
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status in PUSHED_BACK:
                    pause_s = retry_after_s(response.headers.get("Retry-After", ""))
                    host.pushed_back(asked, response.status, pause_s)
                    raise _answered(response.status)
                location = response.headers.get("Location")
                if response.status not in REDIRECTS or location is None:
                    answer: bytes | str = await self._read(response, clock, share)
                else:
                    answer = location
        except DownloadFailure as failure:
            if failure.http_status not in PUSHED_BACK:
                host.answered()
            raise
        except (aiohttp.ClientError, UnicodeError) as error:
            host.answered()
            raise explained(error) from error
        except asyncio.CancelledError:
            if clock.timer.expired():
                host.hung(asked)
            raise
        host.answered()
        return answer

    async def _read(self, response: aiohttp.ClientResponse, clock: Clock, share: Share) -> bytes:
        if not 200 <= response.status < 300:
            raise _answered(response.status)
        most = self._limits.max_bytes
        size = response.content_length or 0
        parts: list[bytes] = []
        if size <= most:
            size = 0
            while size <= most and (part := await response.content.readany()):
                size += len(part)
                if not share.take(len(part)):
                    with clock.stopped():
                        await share.wait_for(len(part))
                parts.append(part)
        if size > most:
            raise DownloadFailure(FetchCode.TOO_LARGE, f"larger than {most:,} bytes")
        return b"".join(parts)


def _answered(status: int) -> DownloadFailure:
    return DownloadFailure(
        FetchCode.HTTP_STATUS,
        f"answered {status}",
        retryable=status in TRANSIENT,
        http_status=status,
    )


def _gave_up(status: int | None, silence: str) -> DownloadFailure:
    """Say why no more is waited for: `status` is what the host pushed back with, if it did."""
    if status is None:
        return DownloadFailure(FetchCode.TIMEOUT, silence, retryable=True)
    detail = f"its host answers {status} and asks to wait"
    return DownloadFailure(FetchCode.HTTP_STATUS, detail, retryable=True, http_status=status)
