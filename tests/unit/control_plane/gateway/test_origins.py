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


def test_a_port_that_others_reach_has_any_name() -> None:
    there = "http://pool.example:8080"
    assert not Origins((), False).are_foreign("POST", "pool.example:8080", there, "")
    assert Origins((), True).are_foreign("POST", "pool.example:8080", there, "")
