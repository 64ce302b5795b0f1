"""The Unsplash API: search pages and download reports, within its hourly limit."""

import time
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from piqueue.commands.progress import tell
from piqueue.commands.terminal import CommandFailed

PAGE_PHOTOS = 30  # the most that the API gives
_TIMEOUT_S = 30
_TRIES = 4
_FIRST_PAUSE_S = 0.5
# The API does not say when its hour is over.
_ASK_AGAIN_S = 300.0


class UnsplashSettings(BaseSettings):
    """Who asks, from PIQUEUE_UNSPLASH_KEY and PIQUEUE_UNSPLASH_APP; _URL names another server."""

    model_config = SettingsConfigDict(env_prefix="PIQUEUE_UNSPLASH_", extra="ignore")

    key: SecretStr | None = None
    app: str = "piqueue"
    url: str = "https://api.unsplash.com"


class _Urls(BaseModel):
    small: str


class _PhotoLinks(BaseModel):
    html: str
    download_location: str


class _UserLinks(BaseModel):
    html: str


class _User(BaseModel):
    name: str
    links: _UserLinks


class _Tag(BaseModel):
    title: str = ""


class Photo(BaseModel):
    """A photo, as far as we use it; `urls.small` is 400 pixels wide."""

    id: str = Field(pattern=r"^[\w-]+$")
    description: str | None = None
    alt_description: str | None = None
    urls: _Urls
    links: _PhotoLinks
    user: _User
    tags: list[_Tag] = []

    @property
    def about(self) -> str:
        """What is said of it in words: descriptions, then tags."""
        said = (self.description, self.alt_description, *(tag.title for tag in self.tags))
        return " · ".join(" ".join(text.split()) for text in said if text)


class SearchPage(BaseModel):
    """One page of the photos found."""

    total_pages: int
    results: list[Photo]


class LimitReached(CommandFailed):
    """The requests of this hour are used up."""

    def __init__(self, limit: str | None) -> None:
        requests = f"the {limit} requests" if limit else "the requests"
        super().__init__(
            f"{requests} that Unsplash allows an hour are used up: "
            "run the same command again later and it goes on, or give --wait"
        )


class PhotoUnknown(CommandFailed):
    """A photo that Unsplash does not have, or not any more."""


class Unsplash:
    """The API, called with the application's key.

    With `wait` it waits where the hour's requests are used up. All methods raise CommandFailed
    when it refuses or stays away, and LimitReached, which is one, without `wait`.
    """

    def __init__(self, settings: UnsplashSettings, *, wait: bool = False) -> None:
        if settings.key is None:
            raise CommandFailed(
                "Unsplash wants to know who asks: register an application at "
                "https://unsplash.com/developers and set PIQUEUE_UNSPLASH_KEY to its access key"
            )
        key = settings.key.get_secret_value()
        self._origin = urlsplit(settings.url)[:2]
        self._url = settings.url.rstrip("/")
        self._http = httpx2.Client(
            headers={"Authorization": f"Client-ID {key}", "Accept-Version": "v1"},
            timeout=_TIMEOUT_S,
        )
        self._wait = wait
        self._limit: str | None = None
        self._spent = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def search(self, words: str, page: int) -> SearchPage:
        """Ask for a page, from 1, of the photos that match `words`, best first."""
        params = {"query": words, "page": page, "per_page": PAGE_PHOTOS}
        response = self._ask(f"{self._url}/search/photos", params)
        try:
            return SearchPage.model_validate_json(response.content)
        except ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(map(str, detail["loc"])) or "the answer"
            raise CommandFailed(
                f"what answers at {self._url} is not the Unsplash API: {where}: {detail['msg']}"
            ) from None

    def report_download(self, location: str) -> None:
        """Tell that a photo was downloaded, at the `download_location` that came with it.

        Raises:
            PhotoUnknown: the location is none of the API's, or the photo was taken back.
        """
        try:
            is_ours = urlsplit(location)[:2] == self._origin
        except ValueError:
            is_ours = False
        if not is_ours:  # it would be given our key
            raise PhotoUnknown(f"its download_location is not below {self._url}")
        self._ask(location)

    def _ask(self, url: str, params: dict[str, Any] | None = None) -> httpx2.Response:
        failures = 0
        while True:
            if self._spent:
                self._spent = False
                self._pause_or_stop("")
            try:
                response = self._http.get(url, params=params)
            except httpx2.TransportError as error:
                failure = f"no answer from {self._url} ({str(error) or type(error).__name__})"
            else:
                status = response.status_code
                self._limit = response.headers.get("x-ratelimit-limit", self._limit)
                is_last = response.headers.get("x-ratelimit-remaining") == "0"
                if response.is_success:
                    self._spent = is_last
                    return response
                if status == HTTPStatus.TOO_MANY_REQUESTS or (
                    status == HTTPStatus.FORBIDDEN
                    and (is_last or "rate limit" in response.text.lower())
                ):
                    self._pause_or_stop(response.headers.get("retry-after", ""))
                    continue
                failure = _refusal(response)
                if status == HTTPStatus.NOT_FOUND:
                    raise PhotoUnknown(failure)
                if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise CommandFailed(failure)
            failures += 1
            if failures == _TRIES:
                raise CommandFailed(failure)
            time.sleep(_FIRST_PAUSE_S * 2**failures)

    def _pause_or_stop(self, retry_after: str) -> None:
        if not self._wait:
            raise LimitReached(self._limit)
        pause_s = float(retry_after) if retry_after.isdecimal() else _ASK_AGAIN_S
        tell(f"the requests of this hour are used up: asking again in {pause_s:.0f} s")
        time.sleep(pause_s)


def _refusal(response: httpx2.Response) -> str:
    """Say why the API refused, in its own words if it gave any."""
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        return "Unsplash does not know this key: set PIQUEUE_UNSPLASH_KEY to your access key"
    try:
        words = "; ".join(map(str, response.json()["errors"]))
    except (ValueError, LookupError, TypeError):
        words = response.reason_phrase
    return f"Unsplash answered {response.status_code}: {words}"
