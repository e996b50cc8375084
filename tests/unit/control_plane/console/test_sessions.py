"""Where a session counts: the console's own paths, asked by its own pages."""

from typing import Any

import pytest
from starlette.responses import Response

from control_plane.console.session_seal import SessionSeal
from control_plane.console.sessions import Sessions, is_own_page, value_of

NOW = 1_000_000.0
SEAL = SessionSeal("s")
COOKIE = f"other=1; yolopool-8080={SEAL.sealed('the-key', NOW)}; b{{d=x"


def scope(path: str = "/v1/models", cookie: str = COOKIE, **headers: str) -> dict[str, Any]:
    sent = {"host": "pool:8080", "cookie": cookie, **headers}
    return {
        "path": path,
        "scheme": "http",
        "server": ("10.0.0.1", 8080),
        "headers": [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in sent.items()],
    }


@pytest.mark.parametrize(
    ("site", "origin", "is_own"),
    [
        ("same-origin", "", True),
        ("none", "", True),
        ("same-site", "http://pool:3000", False),
        ("cross-site", "http://pool:8080", False),
        # Where nothing is encrypted browsers do not say the site.
        ("", "", True),
        ("", "http://pool:8080", True),
        ("", "http://POOL:8080", True),
        ("", "http://pool:3000", False),
        ("", "null", False),
        ("", "http://[::1", False),
    ],
)
def test_whose_page_asks(site: str, origin: str, is_own: bool) -> None:
    assert is_own_page(site, origin, "pool:8080") is is_own
    sessions = Sessions(SEAL, lambda: NOW)
    headers = {"sec_fetch_site": site} if site else {}
    headers |= {"origin": origin} if origin else {}
    assert sessions.key_of(scope(**headers)) == ("the-key" if is_own else "")


def test_it_counts_on_its_own_paths_alone() -> None:
    sessions = Sessions(SEAL, lambda: NOW)
    for path in ("/v1/models", "/console/stream", "/console/session"):
        assert sessions.key_of(scope(path)) == "the-key"
    for path in ("/metrics", "/v2/models/a/infer", "/", "/consolex", "/docs"):
        assert sessions.key_of(scope(path)) == ""
    for cookie in (
        "",
        "yolopool-8080",
        "yolopool-8080=",
        "yolopool-8081=x",
        "a;b;yolopool-8080=\xff",
    ):
        assert sessions.key_of(scope(cookie=cookie)) == "", cookie


def test_a_cookie_is_not_for_scripts_nor_for_other_sites() -> None:
    sessions, answer = Sessions(SEAL, lambda: NOW), Response()
    encrypted = scope() | {"scheme": "https"}
    sessions.begin(answer, "the-key", encrypted)
    said = answer.headers["set-cookie"].lower()
    assert said.startswith("yolopool-8080=")
    for word in ("httponly", "samesite=strict", "secure", "path=/", "max-age=43200"):
        assert word in said, word
    assert "domain" not in said
    sessions.end(answer, scope())
    gone = answer.headers.getlist("set-cookie")[1].lower()
    assert "max-age=0" in gone
    assert "secure" not in gone


def test_cookies_of_others_do_not_hide_it() -> None:
    assert value_of('x="a; b"; broken[=1; yolopool-1=abc', "yolopool-1") == "abc"
