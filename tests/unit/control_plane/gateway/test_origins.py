import pytest

from control_plane.gateway.connection.origins import Origins

HOST, OWN, FOREIGN = "localhost:8080", "http://localhost:8080", "https://evil.example"


@pytest.mark.parametrize(
    ("method", "host", "origin", "site", "are_foreign"),
    [
        ("POST", HOST, "", "", False),  # no browser
        ("GET", HOST, FOREIGN, "cross-site", False),
        ("POST", HOST, OWN, "same-origin", False),
        ("POST", HOST, OWN, "", False),
        ("POST", "LOCALHOST:8080", OWN, "", False),
        ("POST", "[::1]:8080", "http://[::1]:8080", "", False),
        ("POST", HOST, "", "none", False),  # typed by a person
        ("POST", HOST, FOREIGN, "cross-site", True),
        ("DELETE", HOST, FOREIGN, "", True),
        ("PUT", HOST, "http://localhost:3000", "same-site", True),
        ("POST", HOST, "http://localhost:3000", "", True),
        ("POST", HOST, "null", "", True),
        ("POST", HOST, "http://[x", "", True),
        ("POST", HOST, "", "cross-site", True),
        ("POST", "evil.example", "http://evil.example", "", True),  # its name leads here
        # Of a proxy with TLS on this machine.
        ("POST", "pool.example", "https://pool.example", "same-origin", False),
    ],
)
def test_pages_that_may_not_call(
    method: str, host: str, origin: str, site: str, are_foreign: bool
) -> None:
    assert Origins((), True).are_foreign(method, host, origin, site) is are_foreign
    assert not Origins(("*",), True).are_foreign(method, host, origin, site)
    assert not Origins((origin,), True).are_foreign(method, host, origin, site)


@pytest.mark.parametrize(
    ("page", "are_foreign"),
    [
        ("http://localhost:8080/docs", False),
        ("https://evil.example/form", True),
        ("http://[x", True),
        ("http://localhost:3000/", True),
        ("https://shop.example/", False),  # allowed
    ],
)
def test_old_browsers_say_the_page_alone(page: str, are_foreign: bool) -> None:
    origins = Origins(("https://shop.example",), True)
    assert origins.are_foreign("POST", HOST, "", "", page) is are_foreign


STRANGE = ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"]
OWN_NAMES = [
    "localhost", "LOCALHOST:80", "a.localhost:80", "127.0.0.1:8080", "10.0.0.7", "[::1]:80", "here",
    "Here:8080", "localhost.:80", "",
]  # fmt: skip


def test_a_name_that_is_not_of_this_machine_is_strange() -> None:
    origins = Origins((), True, ("here",))
    assert [name for name in STRANGE if not origins.is_strange(name)] == []
    assert [name for name in OWN_NAMES if origins.is_strange(name)] == []
    # Names were given: they hold on a port that others reach, too.
    assert Origins((), False, ("here",)).is_strange("evil.example")


@pytest.mark.parametrize("origins", [Origins((), False), Origins((), True, ("*",))])
def test_every_name_is_known_where_none_can_be_or_all_are(origins: Origins) -> None:
    assert [name for name in STRANGE + OWN_NAMES if origins.is_strange(name)] == []


def test_a_port_that_others_reach_has_any_name() -> None:
    there = "http://pool.example:8080"
    assert not Origins((), False).are_foreign("POST", "pool.example:8080", there, "")
    assert Origins((), True).are_foreign("POST", "pool.example:8080", there, "")
