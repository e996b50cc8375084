"""The server of the HTTP port."""

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import uvicorn

from control_plane.gateway.connection.http_limits import HttpLimits
from control_plane.gateway.connection.http_protocol import HttpDoor, HttpProtocol
from yolopool import __version__
from yolopool.server.exhaustion import allowed_files
from yolopool.server.grpc_server import warn_if_open
from yolopool.tls.certificates import Certificates, TlsFiles

# Connections get at most this part of the files that the process may open: workers, callers by
# gRPC and the store need some too.
_OF_FILES = 0.5
_UNREAD_BYTES = 256 * 1024
_TICKS_A_SECOND = 10  # as the library counts them
_DAY_OF_TICKS = 86_400 * _TICKS_A_SECOND


class _Server(uvicorn.Server):
    """Leaves signals to `app`, which also stops the gRPC server. Stops when it is told to: the
    library looks ten times a second, and then waits a tenth of one.
    """

    def __init__(self, config: uvicorn.Config, door: HttpDoor) -> None:
        super().__init__(config)
        self._door = door
        self._told = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._told.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        for counter in itertools.count():
            if await self.on_tick(counter % _DAY_OF_TICKS):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1 / _TICKS_A_SECOND):
                    await self._told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0)  # those that are idle are closed now
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                await self._wait_tasks_to_complete()
        for task in self.server_state.tasks:
            task.cancel()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_A_SECOND == 0:
            now = self._door.now()
            connections: list[Any] = list(self.server_state.connections)
            for connection in connections:
                connection.check(now)
        return bool(await super().on_tick(counter))


class HttpServer:
    """`bind`, then `serve` until `stop`. `drain`: from now on connections end with their answer."""

    def __init__(
        self, application: Any, limits: HttpLimits, certificates: Certificates | None = None
    ) -> None:
        most = max(1, int(allowed_files() * _OF_FILES))
        limits = replace(limits, max_connections=min(limits.max_connections, most))
        self._door = HttpDoor(limits, lambda: asyncio.get_running_loop().time())
        # What goes wrong in the application is logged by `envelope`, and bad HTTP is not ours.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            http=cast(Any, partial(HttpProtocol, door=self._door)),
            loop="none",
            ws="none",
            backlog=2048,
            server_header=False,
            headers=[("server", f"yolopool/{__version__}")],
            timeout_keep_alive=round(limits.keep_alive_s),
            timeout_graceful_shutdown=1,
        )
        self._files = certificates.files if certificates is not None else TlsFiles()
        if self._files.has_own:
            config.ssl_certfile, config.ssl_keyfile = self._files.certificate, self._files.key
        self._config = config
        self._server = _Server(config, self._door)
        self._socket: socket.socket | None = None

    def bind(self, host: str, port: int) -> int:
        """Returns the port (0: any free one); OSError if it is taken."""
        if not self._files.has_own:
            warn_if_open(host, "HTTP")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=2048)
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port}: is another server using it?") from error
        # Connections inherit both. More of an answer than this waits where its reader is watched.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD_BYTES)
        # asyncio sets it only on sockets that say their protocol, and else an answer of two writes
        # waits 40 ms for the caller's acknowledgement of the first.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return int(self._socket.getsockname()[1])

    async def serve(self) -> None:
        assert self._socket is not None, "serve() before bind(): this is a bug"
        await self._server.serve(sockets=[self._socket])

    def renew(self) -> None:
        """The certificate changed: further connections get it."""
        certificate = self._files.certificate
        if self._config.ssl is not None and certificate is not None:
            self._config.ssl.load_cert_chain(certificate, self._files.key)

    def drain(self) -> None:
        self._door.draining = True

    def stop(self) -> None:
        self._server.stop()
