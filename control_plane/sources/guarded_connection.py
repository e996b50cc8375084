"""Connections of HTTP to hosts that the rules allow: resolved once, every address checked, and
opened to the checked address itself. No proxy is asked: it would resolve the name anew.
"""

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from socket import SHUT_RDWR, SOCK_STREAM, gaierror, getaddrinfo, socket
from threading import Event, Timer

from control_plane.sources.remote_file import CONNECT_S, STALL_S
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import HTTPS, SourceUri
from yolopool.errors import SourceUnavailable

# Seconds for a TLS handshake, and for the head of an answer, however slowly either comes.
HEAD_S = 30.0
# Of a name: those after them are not tried.
_MAX_ADDRESSES = 8


def connection_to(
    uri: SourceUri, rules: SourceRules, context: ssl.SSLContext
) -> http.client.HTTPConnection:
    """An open connection. Raises SourceRefused and SourceUnavailable; OSError of TLS."""
    plain = _connected(uri, rules)
    connection = http.client.HTTPConnection(uri.host, uri.port, timeout=STALL_S)
    try:
        plain.settimeout(STALL_S)
        connection.sock = _secured(plain, uri.host, context) if uri.scheme == HTTPS else plain
    except BaseException:
        plain.close()
        raise
    if uri.scheme == HTTPS and uri.port == 443:
        connection.default_port = 443  # so that the header Host has no port, as servers expect it
    return connection


@contextmanager
def hurried(opened: socket) -> Iterator[None]:
    """Ends what waits for the other side after HEAD_S, by TimeoutError or as a broken connection:
    a server that sends a byte now and then would hold its thread for ever.
    """
    is_late = Event()

    def end() -> None:
        is_late.set()
        with suppress(OSError):
            opened.shutdown(SHUT_RDWR)

    timer = Timer(HEAD_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if is_late.is_set():  # a head that was cut off looks like one that ended
        raise TimeoutError


def _secured(plain: socket, host: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    # The certificate must be of the name, not of the address.
    secure = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    try:
        with hurried(secure):
            secure.do_handshake()
    except BaseException:
        secure.close()
        raise
    return secure


def _connected(uri: SourceUri, rules: SourceRules) -> socket:
    rules.check_host(uri.host)
    try:
        found = getaddrinfo(uri.host, uri.port, type=SOCK_STREAM)
    except (gaierror, UnicodeError) as error:
        raise SourceUnavailable(f"the name {uri.host} is not known: check it") from error
    rules.check_addresses(uri.host, [ip_address(str(at[4][0]).partition("%")[0]) for at in found])
    why = "no address"
    for family, kind, protocol, _, address in found[:_MAX_ADDRESSES]:
        opened = socket(family, kind, protocol)
        try:
            opened.settimeout(CONNECT_S)
            opened.connect(address)
        except OSError as error:
            opened.close()
            why = error.strerror or type(error).__name__
        else:
            return opened
    raise SourceUnavailable(f"{uri.host} can't be reached ({why}): it is tried again")
