"""A small web server on loopback that offers some files under names of their own."""

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote


class PhotoServer:
    """Serves each file of `photos` by its key, inside a `with` block."""

    def __init__(self, photos: Mapping[str, Path]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # keeps connections open

            def do_GET(self) -> None:
                path = photos.get(unquote(self.path.removeprefix("/")))
                body = path.read_bytes() if path else b""
                self.send_response(200 if path else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Requests are no news here."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="photos")

    def url_of(self, name: str) -> str:
        """Where the photo of this name is to be had."""
        return f"http://127.0.0.1:{self._server.server_port}/{quote(name, safe='')}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
