"""Why a payload cannot be scored."""

from enum import StrEnum


class ImageFault(StrEnum):
    """A reason for which a payload cannot be scored."""

    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TOO_MANY_PIXELS = "too_many_pixels"
    TRUNCATED = "truncated"
    DECODE_FAILED = "decode_failed"


class ImageRejected(Exception):
    """A payload cannot be scored; `code` is for programs, `detail` for people."""

    def __init__(self, code: ImageFault, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
