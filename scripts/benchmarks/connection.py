"""One kept-alive connection to the API with little overhead, because its cost is measured too."""

import json
import os
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit

import httpx2

# The API closes connections that are idle for 5 s.
STALE_S = 3
BLOCK_BYTES = 1 << 16


class Connection:
    """Sends one request after the other; `last_s` is the duration of the last one."""

    def __init__(self, url: str, timeout_s: float = 120) -> None:
        parts = urlsplit(url)
        self.last_s = 0.0
        self._used_at = time.perf_counter()
        host = parts.hostname or ""
        self._connection = HTTPConnection(host, parts.port, timeout_s, blocksize=BLOCK_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, target: str) -> Any:
        """Read the JSON of an answer."""
        return self.send("GET", target)

    def post(self, target: str, document: Any) -> Any:
        """Post JSON and read the JSON of the answer."""
        headers = {"Content-Type": "application/json"}
        return self.send("POST", target, json.dumps(document).encode(), headers)

    def send(
        self,
        method: str,
        target: str,
        body: bytes | BinaryIO | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request and read the JSON of its answer.

        Raises:
            RuntimeError: the answer is not 2xx.
        """
        all_headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            all_headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
        started = time.perf_counter()
        if started - self._used_at > STALE_S:
            self._connection.close()  # the request opens it again
        self._connection.request(method, target, body, all_headers)
        answer = self._connection.getresponse()
        text = answer.read()
        self._used_at = time.perf_counter()
        self.last_s = self._used_at - started
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"{method} {target}: {answer.status} {text.decode()}")
        return json.loads(text) if text else None


def multipart(name: str, payload: bytes) -> tuple[bytes, dict[str, str]]:
    """Make the body and headers that post one picture in the form field `name`."""
    request = httpx2.Request("POST", "", files={name: ("picture.jpg", payload, "image/jpeg")})
    return request.read(), {"Content-Type": request.headers["Content-Type"]}
