"""The certificate of a process, its key and its authority: read from files, and again when these
change, so that short-lived certificates need no restart.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc

# Who a certificate is of is a URI in it: yolopool://worker/NAME.
SCHEME = "yolopool"
# And, of one that joined with a token, yolopool-joined://ID: by that it is revoked.
JOINED = "yolopool-joined"
SYSTEM = "system"
# How often the files are looked at, seconds.
LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Without certificate and key a process only checks others."""

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def has_own(self) -> bool:
        return self.certificate is not None and self.key is not None


@dataclass(frozen=True, slots=True)
class _Read:
    authority: bytes | None
    certificate: bytes | None
    key: bytes | None


def certificates_of(
    authority: Path | None, certificate: Path | None, key: Path | None
) -> "Certificates | None":
    """The certificates of a process by its settings; None: it speaks without TLS.

    Raises OSError and ValueError as `Certificates` does.
    """
    if (certificate is None) != (key is None):
        raise ValueError("a certificate and its key go together: set tls_cert and tls_key")
    files = TlsFiles(authority, certificate, key)
    return Certificates(files) if files != TlsFiles() else None


class Certificates:
    """What the files hold at the moment. Files that can't be read leave what was read before."""

    def __init__(self, files: TlsFiles, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises OSError if a file can't be read, ValueError if they do not belong together."""
        self.files = files
        self._clock = clock
        self._looked_s = clock()
        self._stamp = _stamp(files)
        self._read = _read(files)
        self.generation = 1  # grows with each change of the files
        _check(files)

    def refresh(self) -> bool:
        """Reads the files if they changed. Whether they did."""
        now = self._clock()
        if now - self._looked_s < LOOK_S:
            return False
        self._looked_s = now
        try:
            stamp = _stamp(self.files)
            if stamp == self._stamp:
                return False
            _check(self.files)
            self._read = _read(self.files)
        except (OSError, ValueError):
            # Half written, or certificate and key of two issues: looked at again.
            return False
        self._stamp = stamp
        self.generation += 1
        return True

    def of_server(self, ask_clients: bool) -> grpc.ServerCredentials:
        """For a port: with `ask_clients` only peers with a certificate of the authority enter."""
        given = 0

        def fetch() -> Any:
            nonlocal given
            self.refresh()
            if given == self.generation:
                return None
            given = self.generation
            return self._configuration()

        first = self._configuration()
        given = self.generation
        return grpc.dynamic_ssl_server_credentials(first, fetch, ask_clients)

    def of_client(self) -> grpc.ChannelCredentials:
        """For a channel: it checks the server's name, and shows the own certificate if there is."""
        self.refresh()
        read = self._read
        return grpc.ssl_channel_credentials(read.authority, read.key, read.certificate)

    def _configuration(self) -> Any:
        read = self._read
        assert read.key is not None, "a server has a certificate of its own"
        assert read.certificate is not None, "a server has a certificate of its own"
        pair = (read.key, read.certificate)
        return grpc.ssl_server_certificate_configuration([pair], read.authority)


def credentials_of(ca: str | Path | None) -> grpc.ChannelCredentials | None:
    """For a client that trusts the authority in a PEM file, or those of the `system`; None: it
    speaks without TLS. Without `ca` it is YOLOPOOL_CA that counts. Raises OSError.
    """
    ca = ca or os.environ.get("YOLOPOOL_CA", "")
    if not ca:
        return None
    return grpc.ssl_channel_credentials(None if ca == SYSTEM else Path(ca).read_bytes())


def _stamp(files: TlsFiles) -> tuple[tuple[int, int], ...]:
    paths = (files.authority, files.certificate, files.key)
    stats = [path.stat() for path in paths if path is not None]
    return tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)


def _read(files: TlsFiles) -> _Read:
    parts = (files.authority, files.certificate, files.key)
    return _Read(*(path.read_bytes() if path is not None else None for path in parts))


def _check(files: TlsFiles) -> None:
    """Raises ValueError unless the files are a certificate, its key and an authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        if files.certificate is not None:
            context.load_cert_chain(files.certificate, files.key)
        if files.authority is not None:
            context.load_verify_locations(files.authority)
    except ssl.SSLError as error:
        paths = ", ".join(
            str(path) for path in (files.certificate, files.key, files.authority) if path
        )
        raise ValueError(
            f"{paths}: no certificate with its key and authority in PEM ({error.reason})"
        ) from error


class Peer(NamedTuple):
    """What a certificate of the pool says. `joined`: the id by which it can be revoked, if any.
    `hosts`: names and addresses that it is good for.
    """

    role: str
    name: str
    joined: str = ""
    hosts: tuple[str, ...] = ()


def peer_of(context: Any) -> Peer | None:
    """What the certificate says that the peer of a call showed; None: it showed none of the
    pool's.
    """
    auth_context = getattr(context, "auth_context", None)
    found = auth_context() if auth_context is not None else {}
    peer, joined, hosts = None, "", list[str]()
    for text in found.get("x509_subject_alternative_name", ()):
        scheme, is_uri, rest = bytes(text).decode("utf-8", "replace").partition("://")
        role, _, name = rest.partition("/")
        if not is_uri:
            hosts.append(scheme)
        elif scheme == SCHEME and role and name:
            peer = peer or Peer(role, name)
        elif scheme == JOINED:
            joined = rest
    return peer._replace(joined=joined, hosts=tuple(hosts)) if peer is not None else None


async def follow(certificates: Certificates, renewed: Callable[[], Awaitable[None]]) -> None:
    """Calls `renewed` after each change of the files. Does not return."""
    generation = certificates.generation
    while True:
        await asyncio.sleep(LOOK_S)
        certificates.refresh()
        if certificates.generation > generation:
            generation = certificates.generation
            await renewed()
