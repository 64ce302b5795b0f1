"""A client of the Openverse API, which finds pictures by words and licence."""

from collections.abc import Sequence

from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from scripts.workshop.collecting.photo_api import FoundPage, FoundPhoto, PhotoApi, plain_text

PAGE_PHOTOS = 20  # the maximum without a token
# Licences of Creative Commons that allow changed copies, by their names in the API.
LICENSES = {
    "cc0": "CC0",
    "pdm": "Public Domain Mark",
    "by": "CC BY",
    "by-sa": "CC BY-SA",
    "by-nc": "CC BY-NC",
    "by-nc-sa": "CC BY-NC-SA",
}
FREE_LICENSES = ("cc0", "pdm", "by")


class OpenverseSettings(BaseSettings):
    """PIQUEUE_OPENVERSE_TOKEN, an access token that raises the limits; _URL, another server."""

    model_config = SettingsConfigDict(env_prefix="PIQUEUE_OPENVERSE_", extra="ignore")

    token: SecretStr | None = None
    url: str = "https://api.openverse.org/v1"


class _Tag(BaseModel):
    name: str = ""


class _Picture(BaseModel):
    """The fields of a picture that Piqueue uses."""

    id: str = Field(pattern=r"^[\w-]+$")
    title: str | None = None
    url: str
    foreign_landing_url: str | None = None
    creator: str | None = None
    creator_url: str | None = None
    license: str
    license_version: str | None = None
    license_url: str | None = None
    filetype: str | None = Field(default=None, pattern=r"^[a-z0-9]+$")
    tags: list[_Tag] | None = None

    def found(self) -> FoundPhoto:
        """The picture with its credits."""
        kind = LICENSES.get(self.license, self.license)
        columns = {
            "url": self.url,
            "photographer": self.creator or "unknown",
            "photographer_url": self.creator_url or "",
            "photo_url": self.foreign_landing_url or "",
            "license": f"{kind} {self.license_version or ''}".strip(),
            "license_url": self.license_url or "",
        }
        text = plain_text(self.title, *(tag.name for tag in self.tags or ()))
        return FoundPhoto(f"{self.id}.{self.filetype or 'jpg'}", text, columns)


class _Page(BaseModel):
    page_count: int
    results: list[_Picture]


class Openverse(PhotoApi):
    """Searches Openverse for pictures under one of `licenses`."""

    name = "Openverse"
    limit = "limit"

    def __init__(
        self, settings: OpenverseSettings, licenses: Sequence[str], *, wait: bool = False
    ) -> None:
        headers = {"User-Agent": "piqueue-collect"}
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {settings.token.get_secret_value()}"
        super().__init__(settings.url, headers, wait)
        self._licenses = ",".join(licenses)

    def search(self, words: str, page: int) -> FoundPage:
        """Page `page`, counted from 1, of the pictures that match `words`, best match first."""
        params = {"q": words, "license": self._licenses, "page": page, "page_size": PAGE_PHOTOS}
        answer = self.read(_Page, "/images/", params)
        return FoundPage([picture.found() for picture in answer.results], answer.page_count)
