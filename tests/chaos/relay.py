"""A door that hands connections on to a server: slowly if told to, or to another server from then
on, as a virtual address does that moved while old connections live.
"""

import asyncio
from contextlib import suppress

CHUNK = 64 * 1024


class Relay:
    """`open` it on the event loop of the callers; `target` and `delay_s` may change at any time."""

    def __init__(self, port: int, target: int, host: str = "127.0.0.1") -> None:
        self.target = target
        # Every piece waits so long before it goes on, either way.
        self.delay_s = 0.0
        self._host, self._port = host, port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, self._host, self._port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await asyncio.open_connection(self._host, self.target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, onward[1]), (onward[0], writer)):
            task = asyncio.create_task(self._pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while piece := await source.read(CHUNK):
                    if self.delay_s:
                        await asyncio.sleep(self.delay_s)
                    sink.write(piece)
                    await sink.drain()
        finally:
            sink.close()
