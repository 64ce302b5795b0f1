"""A TCP relay between a worker and Redis that can become a black hole."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from scripts.local.image_server import accept_no_more
from scripts.local.stack import Stack
from worker.fetching.loop_thread import LoopThread
from worker.jobs.redis_url import RedisAddress

_READ_BYTES = 1 << 16


class Relay:
    """Forwards connections to the Redis on the unix socket that `target_url` gives."""

    def __init__(self, target_url: Callable[[], str]) -> None:
        self._target_url = target_url
        self._open = asyncio.Event()
        self._open.set()
        self.url = ""

    def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._loop = LoopThread("relay")
        self._server = self._loop.run(asyncio.start_server(self._forward, "127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def stop(self) -> None:
        """Close all connections."""
        self._loop.run(accept_no_more(self._server.sockets))
        self._server.close()
        self._loop.close(asyncio.sleep(0))

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Accept connections and bytes, and deliver nothing until the block ends."""
        self._loop.call(self._open.clear)
        try:
            yield
        finally:
            self._loop.call(self._open.set)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = RedisAddress.parse(self._target_url()).socket_path
        with closing(writer), suppress(OSError):
            redis_reader, redis_writer = await asyncio.open_unix_connection(path)
            with closing(redis_writer):
                pumps = (self._pump(reader, redis_writer), self._pump(redis_reader, writer))
                await asyncio.gather(*pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(_READ_BYTES):
            await self._open.wait()
            writer.write(received)
            await writer.drain()
        await self._open.wait()
        writer.close()


class RelayedStack(Stack):
    """A Piqueue whose first worker reaches Redis through a relay."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.relay = Relay(lambda: self.redis_url)

    def start(self) -> None:
        """Start the relay, and everything else as a stack does."""
        self.relay.start()
        super().start()

    def stop(self) -> None:
        """Stop everything as a stack does, then the relay."""
        try:
            super().stop()
        finally:
            self.relay.stop()

    def _worker_env(self, number: int) -> dict[str, str]:
        relayed = {} if number else {"PIQUEUE_REDIS_URL": self.relay.url}
        return super()._worker_env(number) | relayed
