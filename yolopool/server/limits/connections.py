"""Ends a connection that gRPC has no way to end: one whose caller takes no answer."""

import contextlib
import ipaddress
import os
import socket
from pathlib import Path
from urllib.parse import unquote

_FILES = Path("/proc/self/fd")


def end_connection(peer: str) -> bool:
    """Ends the connection from `peer`, which gRPC names as ipv4:127.0.0.1:40000. False: there is
    none.
    """
    place = _place(peer)
    if place is None:
        return False
    for file in list(_FILES.iterdir()):
        with contextlib.suppress(OSError), _socket(int(file.name)) as connection:
            if _is_from(connection, place):
                connection.shutdown(socket.SHUT_RDWR)
                return True
    return False


def _socket(descriptor: int) -> socket.socket:
    """Of its own: gRPC may close its own meanwhile. Raises OSError for what is no socket."""
    own = os.dup(descriptor)
    try:
        return socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise


def _place(peer: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int] | None:
    kind, _, rest = peer.partition(":")
    host, _, port = unquote(rest).rpartition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    return ipaddress.ip_address(host.strip("[]")), int(port)


def _is_from(
    connection: socket.socket, place: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]
) -> bool:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    host, port, *_ = connection.getpeername()
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return ((mapped or address), port) == place
