"""A web server on loopback with as many pictures as wished, no two of them the same bytes."""

import asyncio
import hashlib
import io
from typing import Self

from PIL import Image

from worker.fetching.loop_thread import LoopThread

_SIZE = (64, 48)
_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
POISON = b"POISON"


def picture(index: int, note: bytes = b"") -> bytes:
    """Make a JPEG that is cheap to decode and differs from that of any other index."""
    colour = (index * 37 % 256, index * 101 % 256, index * 211 % 256)
    target = io.BytesIO()
    Image.new("RGB", _SIZE, colour).save(target, "JPEG", comment=b"picture %d %b" % (index, note))
    return target.getvalue()


class PictureServer:
    """Answers /<index>.jpg after `delay_s`, inside a `with` block; `served` counts the requests.

    The pictures with an index in `poisoned` end a worker that was started with `poison` on its
    PYTHONPATH.
    """

    def __init__(self, delay_s: float = 0.1, poisoned: frozenset[int] = frozenset()) -> None:
        self.served = 0
        self._delay_s = delay_s
        self._poisoned = poisoned
        self._port = 0

    def url(self, index: int) -> str:
        """Where the picture of this index is to be had."""
        return f"http://127.0.0.1:{self._port}/{index}.jpg"

    def sha256(self, index: int) -> str:
        """The hash of the picture of this index."""
        return hashlib.sha256(self._picture(index)).hexdigest()

    def __enter__(self) -> Self:
        self._loop = LoopThread("pictures")
        self._loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call(self._server.close)
        self._loop.close(self._server.wait_closed())

    def _picture(self, index: int) -> bytes:
        return picture(index, POISON if index in self._poisoned else b"")

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                index = int(request.split(b" ", 2)[1].strip(b"/").removesuffix(b".jpg"))
                self.served += 1
                await asyncio.sleep(self._delay_s)
                body = self._picture(index)
                writer.write(_HEAD.format(len(body)).encode() + body)
                await writer.drain()
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass  # the server stops, or the worker at the other end is done, or dead
        finally:
            writer.close()
