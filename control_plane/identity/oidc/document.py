"""Reads a JSON document of an issuer: over verified TLS, whole within a time, of a limited size.

Redirects are not followed, and no proxy is asked.
"""

import asyncio
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

import httptools

LIMIT_S, LIMIT_BYTES, CHUNK_BYTES = 5.0, 256 * 1024, 16 * 1024
MAX_HEADERS, MAX_HEADER_BYTES = 100, 32 * 1024
JSON_TYPES = ("application/json", "application/jwk-set+json")


class NotReadable(Exception):
    """What the issuer answered is no document, or it did not answer; the text says why."""


async def read(url: str, context: ssl.SSLContext | None) -> dict[str, Any]:
    """The object at an address; context: of https. Raises NotReadable."""
    try:
        async with asyncio.timeout(LIMIT_S):
            body = await _body(url, context)
        found = json.loads(body)
    except TimeoutError as error:
        raise NotReadable(f"{url} did not answer in {LIMIT_S:g} s") from error
    except (OSError, ssl.SSLError) as error:
        raise NotReadable(f"{url}: {error}") from error
    except httptools.HttpParserError as error:
        raise NotReadable(f"{url} does not speak HTTP: {error}") from error
    except (ValueError, RecursionError) as error:
        raise NotReadable(f"{url} holds no JSON") from error
    if not isinstance(found, dict):
        raise NotReadable(f"{url} holds no JSON object")
    return found


async def _body(url: str, context: ssl.SSLContext | None) -> bytes:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(
        parts.hostname, port, ssl=context if secure else None, limit=CHUNK_BYTES
    )
    try:
        writer.write(
            f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Accept: application/json\r\nAccept-Encoding: identity\r\n"
            "User-Agent: yolopool\r\nConnection: close\r\n\r\n".encode()
        )
        answer = _Answer(url)
        while not answer.is_whole:
            data = await reader.read(CHUNK_BYTES)
            if not data:
                answer.ended()
                break
            answer.take(data)
        return bytes(answer.body)
    finally:
        # Not waited for: an issuer that does not say goodbye must not hold this up.
        writer.transport.abort()


class _Answer:
    """An answer as it comes in. Its methods raise NotReadable as soon as it is not what it should
    be.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._has_head = False
        self._refusal: str | None = None
        self.body = bytearray()
        self.is_whole = False

    def take(self, data: bytes) -> None:
        if not self._has_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEADER_BYTES + CHUNK_BYTES:
                raise NotReadable(f"{self._url}: its header has more than {MAX_HEADER_BYTES} bytes")
        self._parser.feed_data(data)
        if self._refusal is not None:
            raise NotReadable(f"{self._url} {self._refusal}")

    def ended(self) -> None:
        """The connection ended: so does a body whose length was not told."""
        told = b"content-length" in self._headers or b"transfer-encoding" in self._headers
        if not self._has_head or told:
            raise NotReadable(f"{self._url}: the connection ended within the answer")

    # --- what the parser calls; an exception here would reach `take` as another -----------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value
        if len(self._headers) > MAX_HEADERS:
            self._refuse("has too many headers")

    def on_headers_complete(self) -> None:
        self._has_head = True
        status = self._parser.get_status_code()
        kind = self._headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        encoding = self._headers.get(b"content-encoding", b"identity").strip().lower()
        if status != 200:
            self._refuse(f"answers with status {status}")
        elif kind.decode("latin-1") not in JSON_TYPES:
            self._refuse(f"is of the type {kind[:80].decode('latin-1')!r}, not application/json")
        elif encoding != b"identity":
            self._refuse("is compressed, which was not asked for")

    def on_body(self, body: bytes) -> None:
        if self._refusal is None:
            self.body += body
        if len(self.body) > LIMIT_BYTES:
            self._refuse(f"is longer than {LIMIT_BYTES} bytes")

    def on_message_complete(self) -> None:
        self.is_whole = True

    def _refuse(self, why: str) -> None:
        self._refusal = self._refusal or why
