"""Connections of HTTP to hosts that the rules allow: resolved once, every address checked, and
opened to the checked address itself. No proxy is asked: it would resolve the name anew.
"""

import http.client
import ssl
from ipaddress import ip_address
from socket import SOCK_STREAM, gaierror, getaddrinfo, socket

from control_plane.sources.remote_file import CONNECT_S, STALL_S
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import HTTPS, SourceUri
from yolopool.errors import SourceUnavailable


def connection_to(
    uri: SourceUri, rules: SourceRules, context: ssl.SSLContext
) -> http.client.HTTPConnection:
    """An open connection. Raises SourceRefused and SourceUnavailable; OSError of TLS."""
    plain = _connected(uri, rules)
    connection = http.client.HTTPConnection(uri.host, uri.port, timeout=STALL_S)
    try:
        plain.settimeout(STALL_S)
        secure = uri.scheme == HTTPS
        # The certificate must be of the name, not of the address.
        connection.sock = context.wrap_socket(plain, server_hostname=uri.host) if secure else plain
    except BaseException:
        plain.close()
        raise
    if uri.scheme == HTTPS and uri.port == 443:
        connection.default_port = 443  # so that the header Host has no port, as servers expect it
    return connection


def _connected(uri: SourceUri, rules: SourceRules) -> socket:
    rules.check_host(uri.host)
    try:
        found = getaddrinfo(uri.host, uri.port, type=SOCK_STREAM)
    except (gaierror, UnicodeError) as error:
        raise SourceUnavailable(f"the name {uri.host} is not known: check it") from error
    rules.check_addresses(uri.host, [ip_address(str(at[4][0]).partition("%")[0]) for at in found])
    why = "no address"
    for family, kind, protocol, _, address in found:
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
