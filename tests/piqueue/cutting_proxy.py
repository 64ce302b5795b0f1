"""A TCP proxy for tests that cuts connections in the middle of a response."""

import re
import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class CuttingProxy:
    """Passes connections on to `target`, and cuts each after `most_bytes` of its responses."""

    def __init__(self, target: str, most_bytes: int) -> None:
        parts = urlsplit(target)
        assert parts.hostname
        assert parts.port
        self._target = (parts.hostname, parts.port)
        self._most_bytes = most_bytes
        self.offsets: list[int] = []  # of the downloads, in their order
        self.passed_bytes = 0

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self._listening.getsockname())

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _accept(self) -> None:
        """Serve one connection after the other, as the client opens them."""
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client, socket.create_connection(self._target) as server:
                requests = threading.Thread(target=self._requests, args=(client, server))
                requests.start()
                self._responses(client, server)
                requests.join()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while request := client.recv(65536):
                line = request.partition(b"\r\n")[0]
                if b"/results?" in line:
                    offset = re.search(rb"[?&]offset=(\d+)", line)
                    self.offsets.append(int(offset[1]) if offset else 0)
                server.sendall(request)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _responses(self, client: socket.socket, server: socket.socket) -> None:
        left = self._most_bytes
        with suppress(OSError):
            while left and (part := server.recv(min(left, 65536))):
                client.sendall(part)
                left -= len(part)
                self.passed_bytes += len(part)
        for each in (client, server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
