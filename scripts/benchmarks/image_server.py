"""Serves a folder of pictures on loopback, spending as little of the machine as it can."""

import argparse
import asyncio
from pathlib import Path

from scripts.benchmarks.pictures import read_pictures

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One kept-alive connection; it reads nothing of a request but its path."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self._answers = answers
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, received: bytes) -> None:
        """See `asyncio.Protocol`."""
        *requests, self._waiting = (self._waiting + received).split(b"\r\n\r\n")
        for request in requests:
            path = request.split(b" ", 2)[1]
            self._transport.write(self._answers.get(path, NOT_FOUND))


async def serve(folder: Path) -> None:
    """Answer /<index>.jpg until cancelled; print the port when ready."""
    answers = {
        f"/{index}.jpg".encode(): HEAD.format(len(jpeg)).encode() + jpeg
        for index, jpeg in enumerate(read_pictures(folder))
    }
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(answers), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="made by scripts.benchmarks.pictures")
    asyncio.run(serve(parser.parse_args().folder))
