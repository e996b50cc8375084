"""What a control plane may read from: schemes, hosts, addresses, folders, credentials. Pure.

A name is checked before it is resolved, and every address that it resolves to before a connection
is opened to that very address, so that a name can't lead elsewhere between two looks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from control_plane.sources.source_uri import FILE, S3, WEB, SourceUri
from yolopool.errors import SourceRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IPv4 in IPv6, as translators have it: the address behind counts. Not so of 64:ff9b:1::/48: each
# network decides for itself where in it the address is.
_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ip_network("2000::/3")
# Not global, whatever a version of Python says.
_NEVER_GLOBAL = tuple(
    ip_network(text)
    for text in ("0.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "192.0.0.0/24", "198.18.0.0/15")
)


@dataclass(frozen=True, slots=True)
class SourceRules:
    """`hosts`: patterns of hosts and buckets; none: all. `private_networks`: networks that are not
    of the public internet and may be reached all the same. `roots`: folders whose files may be
    read. `profiles`: names of credentials that callers may use.
    """

    schemes: frozenset[str]
    hosts: tuple[str, ...] = ()
    denied_hosts: tuple[str, ...] = ()
    private_networks: tuple[Network, ...] = ()
    roots: tuple[str, ...] = ()
    profiles: frozenset[str] = frozenset()

    def check(self, uri: SourceUri, profile: str = "") -> None:
        """What can be said before anything is resolved or opened. Raises SourceRefused."""
        if uri.scheme not in self.schemes:
            allowed = ", ".join(sorted(self.schemes)) or "none"
            raise SourceRefused(
                f"{uri.scheme} is not read from here: an operator allows schemes with "
                f"--source-schemes (now: {allowed})"
            )
        if profile and uri.scheme != S3:
            raise SourceRefused(f"a profile is of S3: {uri.scheme} takes none")
        if profile and profile not in self.profiles:
            raise SourceRefused(
                f"the profile {profile[:60]!r} may not be used: an operator allows it with "
                "--source-profiles"
            )
        if uri.scheme == FILE:
            self.check_path(uri.path)
        elif uri.host:
            self.check_host(uri.host)
            if uri.scheme in WEB and (literal := _literal(uri.host)) is not None:
                self.check_addresses(uri.host, [literal])

    def check_host(self, host: str) -> None:
        denied = any(fnmatchcase(host, pattern) for pattern in self.denied_hosts)
        allowed = not self.hosts or any(fnmatchcase(host, pattern) for pattern in self.hosts)
        if denied or not allowed:
            raise SourceRefused(
                f"{host} may not be read from: an operator allows hosts and buckets with "
                "--source-hosts, and forbids them with --source-denied-hosts"
            )

    def check_addresses(self, host: str, addresses: Iterable[Address]) -> None:
        """Raises SourceRefused if one of them is not of the public internet, and not allowed."""
        for address in addresses:
            if not self._may_reach(address):
                # Not which address: the caller would learn the names of the network behind.
                raise SourceRefused(
                    f"{host} is not of the public internet: an operator allows networks with "
                    "--source-private-networks"
                )

    def check_path(self, path: str) -> None:
        if not any(path.startswith(f"{root.rstrip('/')}/") for root in self.roots):
            raise SourceRefused(
                "files of the control plane's machine are read from the folders of --source-roots "
                "alone; a file of your own is uploaded: yolopool models register NAME FILE"
            )

    def _may_reach(self, address: Address) -> bool:
        addresses = (address, *_behind(address))
        if any(one in network for one in addresses for network in self.private_networks):
            return True
        return all(map(_is_public, addresses))


def _is_public(address: Address) -> bool:
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified
    if isinstance(address, IPv6Address):
        # Of those that hold an IPv4 address the one behind decides too; tunnels are never reached.
        holds = address.ipv4_mapped is not None or address in _NAT64
        is_tunnel = address.teredo is not None or address.sixtofour is not None
        is_unicast = address in _GLOBAL_UNICAST
        return holds or (is_unicast and address.is_global and not is_special and not is_tunnel)
    never = any(address in network for network in _NEVER_GLOBAL)
    return address.is_global and not is_special and not never


def _behind(address: Address) -> tuple[Address, ...]:
    """The IPv4 address that one of IPv6 stands for."""
    if not isinstance(address, IPv6Address):
        return ()
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None
