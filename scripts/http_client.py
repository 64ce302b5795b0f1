"""HTTP requests to our own API: standard library only, deadline on each, no proxies."""

import http.client
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON.

        Raises:
            ValueError: it is not JSON.
        """
        return json.loads(self.body)


def request(
    url: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    content_type: str | None = None,
    timeout_s: float = 30,
) -> Answer:
    """Send one request over plain HTTP on a connection of its own.

    Raises:
        OSError, http.client.HTTPException: no answer.
    """
    parts = urlsplit(url)
    target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    headers: Mapping[str, str] = {"Content-Type": content_type} if content_type else {}
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request(method, target, body=body, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.read())
    finally:
        connection.close()


def post_json(url: str, document: Any) -> Answer:
    """POST `document` as JSON."""
    body = json.dumps(document).encode()
    return request(url, method="POST", body=body, content_type="application/json")


def post_files(url: str, files: Mapping[str, Path]) -> Answer:
    """POST files as multipart parts named `files`, each under the name that is its key."""
    boundary = uuid.uuid4().hex
    body = bytearray()
    for name, path in files.items():
        quoted = re.sub(r'["\r\n]', lambda match: quote(match[0]), name)  # as browsers do
        head = f'Content-Disposition: form-data; name="files"; filename="{quoted}"'
        body += f"--{boundary}\r\n{head}\r\n\r\n".encode(errors="replace")
        body += path.read_bytes() + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    content_type = f"multipart/form-data; boundary={boundary}"
    return request(url, method="POST", body=bytes(body), content_type=content_type)
