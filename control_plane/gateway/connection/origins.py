"""Which web pages may call: a browser sends what a page asks for to any server it reaches, also to
one that only this machine reaches, and asks nobody. Pure.
"""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from yolopool.transport import is_loopback

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_PAGES = ("same-origin", "none")
_ANY = "*"


@dataclass(frozen=True, slots=True)
class Origins:
    """`allowed`: origins as browsers write them, or *. `is_local`: only this machine reaches the
    port, so that its own pages come from a name of this machine. `hosts`: other names of it, or *.
    """

    allowed: Collection[str]
    is_local: bool
    hosts: Collection[str] = ()

    def is_strange(self, host: str) -> bool:
        """Whether a request names a host that is not this one: a page of that name may have had it
        lead here, and would read what is answered. Nobody can do so with an address.
        """
        if _ANY in self.hosts or not (self.hosts or self.is_local):
            return False
        name = _name_of(host)
        if not name or name == "localhost" or name.endswith(".localhost") or name in self.hosts:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return True
        return False

    def are_foreign(self, method: str, host: str, origin: str, site: str, page: str = "") -> bool:
        """Whether a page sends the request that may not. host, origin, site, page: the fields Host,
        Origin, Sec-Fetch-Site and Referer, empty if they are not there; only browsers send the last
        three.
        """
        if method in _READING or _ANY in self.allowed or origin in self.allowed:
            return False
        if site:
            return site not in _OWN_PAGES
        if not (origin or page):
            return False
        try:
            place = urlsplit(origin or page)
            name = place.hostname or ""
        except ValueError:
            return True
        if not origin and f"{place.scheme}://{place.netloc}" in self.allowed:
            return False
        # A page of another name may have had that name lead to this machine.
        is_known = is_loopback(name) or name in self.hosts
        return place.netloc.lower() != host.lower() or (self.is_local and not is_known)


def _name_of(host: str) -> str:
    """A field Host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()
