"""Which web pages may change something: a browser sends a form of any page to any server it
reaches, also to one that only this machine reaches, and asks nobody. Pure.
"""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from yolopool.transport import is_loopback

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_PAGES = ("same-origin", "none")


@dataclass(frozen=True, slots=True)
class Origins:
    """`allowed`: origins as browsers write them, or *. `is_local`: only this machine reaches the
    port, so that its own pages come from a name of this machine.
    """

    allowed: Collection[str]
    is_local: bool

    def are_foreign(self, method: str, host: str, origin: str, site: str) -> bool:
        """Whether a page sends the request that may not. host, origin, site: the fields Host,
        Origin and Sec-Fetch-Site, empty if they are not there; only browsers send the last two.
        """
        if method in _READING or "*" in self.allowed or origin in self.allowed:
            return False
        if site:
            return site not in _OWN_PAGES
        if not origin:
            return False
        try:
            place = urlsplit(origin)
            name = place.hostname or ""
        except ValueError:
            return True
        # A page of another name may have had that name lead to this machine.
        return place.netloc.lower() != host.lower() or (self.is_local and not is_loopback(name))
