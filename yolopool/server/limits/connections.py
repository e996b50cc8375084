"""Ends connections that gRPC has no way to end: those whose callers take no answer."""

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

_FILES = Path("/proc/self/fd")

Place = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


def end_connections(peers: Iterable[str]) -> set[str]:
    """Ends the connections from `peers`, which gRPC names as ipv4:127.0.0.1:40000. Returns those
    that were ended. It looks at every open file once, however many peers there are: 10 µs each.

    Raises OSError where the process may not look at its files, or can open no more.
    """
    places = {place: peer for peer in peers if (place := _place(peer)) is not None}
    ended = set[str]()
    for file in list(_FILES.iterdir()) if places else ():
        with contextlib.suppress(OSError), _socket(int(file.name)) as connection:
            place = _origin(connection)
            peer = places.get(place) if place is not None else None
            if peer is not None:
                connection.shutdown(socket.SHUT_RDWR)
                ended.add(peer)
    return ended


def _socket(descriptor: int) -> socket.socket:
    """Of its own: gRPC may close its own meanwhile. Raises OSError for what is no socket."""
    own = os.dup(descriptor)
    try:
        return socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise


def _place(peer: str) -> Place | None:
    kind, _, rest = peer.partition(":")
    host, _, port = unquote(rest).rpartition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    return ipaddress.ip_address(host.strip("[]")), int(port)


def _origin(connection: socket.socket) -> Place | None:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host, port, *_ = connection.getpeername()
    address = ipaddress.ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address, port
