"""A client of the Unsplash API."""

from http import HTTPStatus
from urllib.parse import urlsplit

import httpx2
from pydantic import AliasPath, BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from piqueue.commands.terminal import CommandFailed
from scripts.workshop.collecting.photo_api import (
    FoundPage,
    FoundPhoto,
    PhotoApi,
    PhotoUnknown,
    plain_text,
)

PAGE_PHOTOS = 30  # the maximum of the API
DOWNLOAD_LOCATION = "download_location"


class UnsplashSettings(BaseSettings):
    """PIQUEUE_UNSPLASH_KEY, the access key; _APP, the name in links; _URL, another server."""

    model_config = SettingsConfigDict(env_prefix="PIQUEUE_UNSPLASH_", extra="ignore")

    key: SecretStr | None = None
    app: str = "piqueue"
    url: str = "https://api.unsplash.com"


class _Tag(BaseModel):
    title: str = ""


class _Photo(BaseModel):
    """The fields of a photo that Piqueue uses; the picture at `small_url` is 400 pixels wide."""

    id: str = Field(pattern=r"^[\w-]+$")
    description: str | None = None
    alt_description: str | None = None
    small_url: str = Field(validation_alias=AliasPath("urls", "small"))
    page_url: str = Field(validation_alias=AliasPath("links", "html"))
    download_location: str = Field(validation_alias=AliasPath("links", DOWNLOAD_LOCATION))
    photographer: str = Field(validation_alias=AliasPath("user", "name"))
    photographer_url: str = Field(validation_alias=AliasPath("user", "links", "html"))
    tags: list[_Tag] = []

    def found(self, app: str) -> FoundPhoto:
        """The photo with its credits, whose links name the application `app`."""
        referral = f"?utm_source={app}&utm_medium=referral"
        columns = {
            "url": self.small_url,
            "photographer": self.photographer,
            "photographer_url": self.photographer_url + referral,
            "photo_url": self.page_url + referral,
            "license": "Unsplash License",
            "license_url": "https://unsplash.com/license",
            DOWNLOAD_LOCATION: self.download_location,
        }
        tags = (tag.title for tag in self.tags)
        text = plain_text(self.description, self.alt_description, *tags)
        return FoundPhoto(f"{self.id}.jpg", text, columns)


class _Page(BaseModel):
    total_pages: int
    results: list[_Photo]


class Unsplash(PhotoApi):
    """Calls the API with the application's key."""

    name = "Unsplash"
    limit = "hourly limit"

    def __init__(self, settings: UnsplashSettings, *, wait: bool = False) -> None:
        if settings.key is None:
            raise CommandFailed(
                "Unsplash requires an access key: register an application at "
                "https://unsplash.com/developers and set PIQUEUE_UNSPLASH_KEY to its access key"
            )
        key = settings.key.get_secret_value()
        headers = {"Authorization": f"Client-ID {key}", "Accept-Version": "v1"}
        super().__init__(settings.url, headers, wait)
        self._app = settings.app

    def search(self, words: str, page: int) -> FoundPage:
        """Page `page`, counted from 1, of the photos that match `words`, best match first."""
        params = {"query": words, "page": page, "per_page": PAGE_PHOTOS}
        answer = self.read(_Page, "/search/photos", params)
        return FoundPage([photo.found(self._app) for photo in answer.results], answer.total_pages)

    def report_download(self, location: str) -> None:
        """Report the download of a photo to its `download_location`.

        Raises:
            PhotoUnknown: the location is not part of the API, or the photo was withdrawn.
        """
        try:
            is_api = urlsplit(location)[:2] == urlsplit(self.url)[:2]
        except ValueError:
            is_api = False
        if not is_api:  # another server must not get the key
            raise PhotoUnknown(f"its download_location is not below {self.url}")
        self.get(location)

    def _refusal(self, response: httpx2.Response) -> str:
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            return "Unsplash rejected the access key: set PIQUEUE_UNSPLASH_KEY to a valid one"
        return super()._refusal(response)
