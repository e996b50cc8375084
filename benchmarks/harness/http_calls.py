"""One HTTP connection of a load generator: as little as a client can do, so that servers are
measured and not a client library.
"""

import asyncio


class Connection:
    """`async with` one connection; `call` sends a whole request and waits for its answer."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def __aenter__(self) -> "Connection":
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; of an answer with a Content-Length."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        return int(head.split(b" ", 2)[1]), await self._reader.readexactly(int(length))


def post(path: str, kind: str, body: bytes, headers: str = "") -> bytes:
    """The bytes of a request; headers: lines that end with CR LF."""
    head = f"POST {path} HTTP/1.1\r\nHost: pool\r\nContent-Type: {kind}\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
