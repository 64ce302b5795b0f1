"""One kept-alive connection to the API with little overhead, because its cost is measured too."""

import time
from collections.abc import Mapping
from typing import Any, Self

import urllib3


class Connection:
    """Sends one request after the other; `last_s` is the duration of the last one."""

    def __init__(
        self, url: str, timeout_s: float = 120, headers: Mapping[str, str] | None = None
    ) -> None:
        self.last_s = 0.0
        self._headers = dict(headers or {})
        self._pool = urllib3.connection_from_url(
            url, timeout=timeout_s, retries=False, blocksize=1 << 16
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def get(self, target: str) -> Any:
        """Read the JSON of an answer."""
        return self.send("GET", target)

    def post(self, target: str, document: Any) -> Any:
        """Post JSON and read the JSON of the answer."""
        return self.send("POST", target, json=document)

    def send(self, method: str, target: str, **options: Any) -> Any:
        """Send a request with options of urllib3, and read the JSON of its answer.

        Raises:
            RuntimeError: the answer is not 2xx.
        """
        started = time.perf_counter()
        headers = self._headers | options.pop("headers", {})
        answer = self._pool.request(method, target, headers=headers, **options)
        self.last_s = time.perf_counter() - started
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"{method} {target}: {answer.status} {answer.data.decode()}")
        return answer.json() if answer.data else None


def picture_field(name: str, payload: bytes) -> dict[str, tuple[str, bytes, str]]:
    """The form with one picture in the field `name`."""
    return {name: ("picture.jpg", payload, "image/jpeg")}
