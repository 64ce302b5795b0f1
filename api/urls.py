"""What a URL must be like; kept apart from the service, for clients read the schemas too."""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

MAX_URL_CHARS = 4096
_UNSAFE = re.compile(r"[\x00-\x20\x7f]")


def url_problem(url: str) -> str | None:
    """Say what is wrong with a URL, or None; nothing is looked up or dialled."""
    if not url:
        return "the URL is empty"
    if len(url) > MAX_URL_CHARS:
        return f"the URL is longer than {MAX_URL_CHARS} characters"
    if _UNSAFE.search(url):
        return "the URL has spaces or control characters: percent-encode them"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"not a URL: {error}"
    if parts.scheme not in ("http", "https"):
        return "the URL must begin with http:// or https://"
    if not parts.hostname:
        return "the URL names no host"
    if parts.username is not None or parts.password is not None:
        return "the URL holds a user name or password: leave them out"
    if port == 0:
        return "port 0 cannot be connected to"
    return None


def source_problem(url: str, s3_buckets: Collection[str]) -> str | None:
    """Say what is wrong with where a picture is to come from, or None: a URL, or s3://bucket/key.

    The key is taken as it stands: `%`, `?` and spaces in it mean themselves.
    """
    if not url.startswith("s3://"):
        return url_problem(url)
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket or not key:
        return "an S3 URL is like s3://bucket/key"
    if len(url) > MAX_URL_CHARS or not key.isprintable():
        return f"the S3 URL is longer than {MAX_URL_CHARS} characters or not printable"
    if bucket not in s3_buckets:
        return (
            f"pictures may not come from the bucket {bucket}: "
            "whoever runs this service can add it to PIQUEUE_S3_FETCH_BUCKETS"
        )
    return None
