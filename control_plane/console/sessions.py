"""The session of a browser: a cookie that stands for the key somebody signed in with.

It counts for the console and the paths that the console calls, and only where a page of this origin
asks: another page of the same machine shares its cookies.
"""

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import Scope

from control_plane.console.session_seal import LASTS_S, SessionSeal

PREFIXES = ("/console/", "/v1/")
_OWN = ("same-origin", "none")


class Sessions:
    """`now`: Unix seconds."""

    def __init__(self, seal: SessionSeal, now: Callable[[], float]) -> None:
        self._seal = seal
        self._now = now

    def key_of(self, scope: Scope) -> str:
        """The key that a request's session stands for; empty: it has none that counts."""
        if not scope["path"].startswith(PREFIXES):
            return ""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        cookies = headers.get(b"cookie", b"").decode("latin-1")
        name = _name(scope)
        if name not in cookies:
            return ""

        def said(header: bytes) -> str:
            return headers.get(header, b"").decode("latin-1")

        if not is_own_page(said(b"sec-fetch-site"), said(b"origin"), said(b"host")):
            return ""
        return self._seal.opened(value_of(cookies, name), self._now())

    def begin(self, response: Response, key: str, scope: Scope) -> None:
        self._set(response, self._seal.sealed(key, self._now()), round(LASTS_S), scope)

    def end(self, response: Response, scope: Scope) -> None:
        self._set(response, "", 0, scope)

    @staticmethod
    def _set(response: Response, value: str, lasts_s: int, scope: Scope) -> None:
        response.set_cookie(
            _name(scope),
            value,
            max_age=lasts_s,
            path="/",
            secure=scope["scheme"] == "https",
            httponly=True,
            samesite="strict",
        )


def is_own_page(site: str, origin: str, host: str) -> bool:
    """Whether a page of this origin sends a request, or the person at the address bar.

    site, origin, host: the fields Sec-Fetch-Site, which browsers leave out where nothing is
    encrypted, Origin and Host.
    """
    if site:
        return site in _OWN
    if not origin:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def value_of(cookies: str, name: str) -> str:
    """Of the cookie of that name in a field Cookie; empty: there is none."""
    for part in cookies.split(";"):
        try:
            found = SimpleCookie(part.strip())
        except CookieError:
            continue  # another's
        if name in found:
            return found[name].value
    return ""


def _name(scope: Scope) -> str:
    """Ports of one host share their cookies, and several pools may be on it."""
    server = scope.get("server")
    return f"yolopool-{server[1] if server else 0}"
