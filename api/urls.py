"""What a URL must be like; kept apart from the service, for clients read the schemas too."""

from urllib.parse import urlsplit

MAX_URL_CHARS = 4096


def url_problem(url: str) -> str | None:
    """Say what is wrong with a URL, or None; nothing is looked up or dialled."""
    if len(url) > MAX_URL_CHARS:
        return f"the URL is longer than {MAX_URL_CHARS} characters"
    if any(ord(char) <= 32 or ord(char) == 127 for char in url):
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
