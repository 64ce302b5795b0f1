"""A client of the Unsplash API that respects its hourly limit."""

import time
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
from pydantic import AliasPath, BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from piqueue.commands.progress import tell
from piqueue.commands.terminal import CommandFailed

PAGE_PHOTOS = 30  # the maximum of the API
_TIMEOUT_S = 30
_TRIES = 4
_FIRST_PAUSE_S = 0.5
# The API does not say when the hour ends.
_LIMIT_PAUSE_S = 300.0


class UnsplashSettings(BaseSettings):
    """PIQUEUE_UNSPLASH_KEY, the access key; _APP, the name in links; _URL, another server."""

    model_config = SettingsConfigDict(env_prefix="PIQUEUE_UNSPLASH_", extra="ignore")

    key: SecretStr | None = None
    app: str = "piqueue"
    url: str = "https://api.unsplash.com"


class _Tag(BaseModel):
    title: str = ""


class Photo(BaseModel):
    """The fields of a photo that Piqueue uses; the picture at `small_url` is 400 pixels wide."""

    id: str = Field(pattern=r"^[\w-]+$")
    description: str | None = None
    alt_description: str | None = None
    small_url: str = Field(validation_alias=AliasPath("urls", "small"))
    page_url: str = Field(validation_alias=AliasPath("links", "html"))
    download_location: str = Field(validation_alias=AliasPath("links", "download_location"))
    photographer: str = Field(validation_alias=AliasPath("user", "name"))
    photographer_url: str = Field(validation_alias=AliasPath("user", "links", "html"))
    tags: list[_Tag] = []

    @property
    def description_text(self) -> str:
        """The descriptions and tags, separated by dots."""
        texts = (self.description, self.alt_description, *(tag.title for tag in self.tags))
        return " · ".join(" ".join(text.split()) for text in texts if text)


class SearchPage(BaseModel):
    """One page of search results."""

    total_pages: int
    results: list[Photo]


class LimitReached(CommandFailed):
    """The hourly limit of requests is reached."""


class PhotoUnknown(CommandFailed):
    """Unsplash does not have the photo, or not any more."""


class Unsplash:
    """Calls the API with the application's key; at the hourly limit it waits if `wait` is set.

    All methods raise CommandFailed if the API refuses a request or does not answer, and its
    subclass LimitReached at the hourly limit without `wait`.
    """

    def __init__(self, settings: UnsplashSettings, *, wait: bool = False) -> None:
        if settings.key is None:
            raise CommandFailed(
                "Unsplash requires an access key: register an application at "
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
        self._requests = "requests"
        self._limit_reached = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def search(self, words: str, page: int) -> SearchPage:
        """Page `page`, counted from 1, of the photos that match `words`, best match first."""
        params = {"query": words, "page": page, "per_page": PAGE_PHOTOS}
        response = self._get(f"{self._url}/search/photos", params)
        try:
            return SearchPage.model_validate_json(response.content)
        except ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(map(str, detail["loc"])) or "the answer"
            raise CommandFailed(
                f"the server at {self._url} is not the Unsplash API ({where}: {detail['msg']}): "
                "correct PIQUEUE_UNSPLASH_URL"
            ) from None

    def report_download(self, location: str) -> None:
        """Report the download of a photo to its `download_location`.

        Raises:
            PhotoUnknown: the location is not part of the API, or the photo was withdrawn.
        """
        try:
            is_api = urlsplit(location)[:2] == self._origin
        except ValueError:
            is_api = False
        if not is_api:  # another server must not get the key
            raise PhotoUnknown(f"its download_location is not below {self._url}")
        self._get(location)

    def _get(self, url: str, params: dict[str, Any] | None = None) -> httpx2.Response:
        failures = 0
        while True:
            if self._limit_reached:
                self._limit_reached = False
                self._wait_for_limit("")
            try:
                response = self._http.get(url, params=params)
            except httpx2.TransportError as error:
                reason = str(error) or type(error).__name__
                failure = f"no answer from {self._url} ({reason}): try again later"
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
                failure = _refusal(response)
                if status == HTTPStatus.NOT_FOUND:
                    raise PhotoUnknown(failure)
                if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise CommandFailed(failure)
            failures += 1
            if failures == _TRIES:
                raise CommandFailed(failure)
            time.sleep(_FIRST_PAUSE_S * 2**failures)

    def _wait_for_limit(self, retry_after: str) -> None:
        if not self._wait:
            raise LimitReached(
                f"Unsplash's hourly limit of {self._requests} is reached: "
                "run the same command again later to continue, or give --wait"
            )
        pause_s = float(retry_after) if retry_after.isdecimal() else _LIMIT_PAUSE_S
        tell(f"Unsplash's hourly limit is reached: trying again in {pause_s:.0f} s")
        time.sleep(pause_s)


def _refusal(response: httpx2.Response) -> str:
    """Why the API refused a request, as it says if it does."""
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        return "Unsplash rejected the access key: set PIQUEUE_UNSPLASH_KEY to a valid one"
    try:
        reason = "; ".join(map(str, response.json()["errors"]))
    except (ValueError, LookupError, TypeError):
        reason = response.reason_phrase
    advice = "" if response.status_code == HTTPStatus.NOT_FOUND else ": try again later"
    return f"Unsplash answered {response.status_code} ({reason}){advice}"
