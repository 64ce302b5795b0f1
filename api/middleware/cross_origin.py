"""Cross-origin requests (CORS): pages of other sites that may use the API."""

from collections.abc import Collection

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

_SENT = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match")
_READ = ("Content-Disposition", "ETag", "Idempotency-Replayed", "Location", "Preference-Applied")


def allow_origins(app: FastAPI, origins: Collection[str]) -> None:
    """Let scripts of these origins send requests to `app` and read its responses."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=(*_SENT, "Last-Event-ID", "Prefer", "X-Request-ID"),
            # Also to a page of a public site, of an API in a private network.
            allow_private_network=True,
            expose_headers=(*_READ, "Retry-After", "X-Request-ID"),
        )
