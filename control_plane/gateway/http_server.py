"""The server of the HTTP port, without TLS."""

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from yolopool.server.grpc_server import warn_if_open
from yolopool.tls.certificates import Certificates, TlsFiles


class _Server(uvicorn.Server):
    """Leaves signals to `app`, which also stops the gRPC server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """`bind`, then `serve` until `stop`."""

    def __init__(self, application: FastAPI, certificates: Certificates | None = None) -> None:
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="httptools",
            loop="none",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._files = certificates.files if certificates is not None else TlsFiles()
        if self._files.has_own:
            config.ssl_certfile, config.ssl_keyfile = self._files.certificate, self._files.key
        self._config = config
        self._server = _Server(config)
        self._socket: socket.socket | None = None

    def bind(self, host: str, port: int) -> int:
        """Returns the port (0: any free one); OSError if it is taken."""
        if not self._files.has_own:
            warn_if_open(host, "HTTP")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port}: is another server using it?") from error
        return int(self._socket.getsockname()[1])

    async def serve(self) -> None:
        assert self._socket is not None, "serve() before bind(): this is a bug"
        await self._server.serve(sockets=[self._socket])

    def renew(self) -> None:
        """The certificate changed: further connections get it."""
        certificate = self._files.certificate
        if self._config.ssl is not None and certificate is not None:
            self._config.ssl.load_cert_chain(certificate, self._files.key)

    def stop(self) -> None:
        self._server.should_exit = True
