"""What collecting needs of an API that searches for photos: pages of photos, limits, retries."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol, Self, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from piqueue.commands.progress import tell
from piqueue.commands.terminal import CommandFailed

_TIMEOUT_S = 30
_TRIES = 4
_FIRST_PAUSE_S = 0.5
# The API may not say when more requests are allowed.
_LIMIT_PAUSE_S = 300.0
# A limit of requests per minute is always waited for.
_SHORT_PAUSE_S = 60


@dataclass(frozen=True)
class FoundPhoto:
    """A photo that a search found.

    `text` is what its author says about it; `columns` are its URL, licence and author.
    """

    name: str
    text: str
    columns: Mapping[str, str]


@dataclass(frozen=True)
class FoundPage:
    """One of `page_count` pages of search results."""

    photos: list[FoundPhoto]
    page_count: int


class PhotoSource(Protocol):
    """An API that finds photos by words."""

    def search(self, words: str, page: int) -> FoundPage:
        """Page `page`, counted from 1, of the photos that match `words`, best match first."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class LimitReached(CommandFailed):
    """The limit of requests is reached."""


class PhotoUnknown(CommandFailed):
    """The API does not have the photo, or not any more."""


Answer = TypeVar("Answer", bound=BaseModel)


class PhotoApi:
    """Calls the API named `name` at `url`; at its limit of requests it waits if `wait` is set.

    All methods raise CommandFailed if the API refuses a request or does not answer, and its
    subclass LimitReached at the limit without `wait`.
    """

    name: str
    limit: str

    def __init__(self, url: str, headers: Mapping[str, str], wait: bool) -> None:
        self.url = url.rstrip("/")
        self._http = httpx2.Client(headers=headers, timeout=_TIMEOUT_S)
        self._wait = wait
        self._requests = "requests"
        self._limit_reached = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def read(self, kind: type[Answer], path: str, params: dict[str, Any]) -> Answer:
        """The answer to a request below `url`."""
        response = self.get(f"{self.url}{path}", params)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(map(str, detail["loc"])) or "the answer"
            raise CommandFailed(
                f"the server at {self.url} is not the {self.name} API ({where}: "
                f"{detail['msg']}): correct PIQUEUE_{self.name.upper()}_URL"
            ) from None

    def get(self, url: str, params: dict[str, Any] | None = None) -> httpx2.Response:
        """The answer of the API, after retries and pauses."""
        failures = 0
        while True:
            if self._limit_reached:
                self._limit_reached = False
                self._wait_for_limit("")
            try:
                response = self._http.get(url, params=params)
            except httpx2.TransportError as error:
                reason = str(error) or type(error).__name__
                failure = f"no answer from {self.url} ({reason}): try again later"
            else:
                status = response.status_code
                if limit := response.headers.get("x-ratelimit-limit"):
                    self._requests = f"{limit} requests"
                is_last = response.headers.get("x-ratelimit-remaining") == "0"
                if response.is_success:
                    self._limit_reached = is_last
                    return response
                if status == HTTPStatus.TOO_MANY_REQUESTS or (
                    status == HTTPStatus.FORBIDDEN
                    and (is_last or "rate limit" in response.text.lower())
                ):
                    self._wait_for_limit(response.headers.get("retry-after", ""))
                    continue
                failure = self._refusal(response)
                if status == HTTPStatus.NOT_FOUND:
                    raise PhotoUnknown(failure)
                if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise CommandFailed(failure)
            failures += 1
            if failures == _TRIES:
                raise CommandFailed(failure)
            time.sleep(_FIRST_PAUSE_S * 2**failures)

    def _wait_for_limit(self, retry_after: str) -> None:
        pause_s = float(retry_after) if retry_after.isdecimal() else _LIMIT_PAUSE_S
        if not self._wait and pause_s > _SHORT_PAUSE_S:
            raise LimitReached(
                f"{self.name}'s {self.limit} of {self._requests} is reached: "
                "run the same command again later to continue, or give --wait"
            )
        tell(f"{self.name}'s {self.limit} is reached: trying again in {pause_s:.0f} s")
        time.sleep(pause_s)

    def _refusal(self, response: httpx2.Response) -> str:
        """Why the API refused a request, as it says if it does."""
        try:
            body = response.json()
            reason = body.get("detail") or "; ".join(map(str, body["errors"]))
        except (ValueError, LookupError, TypeError, AttributeError):
            reason = response.reason_phrase
        advice = "" if response.status_code == HTTPStatus.NOT_FOUND else ": try again later"
        return f"{self.name} answered {response.status_code} ({reason}){advice}"


def plain_text(*texts: str | None) -> str:
    """Texts of an API as one line, separated by dots."""
    return " · ".join(" ".join(text.split()) for text in texts if text)
