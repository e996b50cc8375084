"""Files by https: the certificate must be of the name and trusted, logins go by TLS alone, and no
redirect leads out of it.
"""

import ssl
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from control_plane.sources.http_file import HttpFile, Web
from control_plane.sources.opening import read_logins
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import SCHEMES, parse
from tests.contract.broken_server import Server, Turn, broken_server
from yolopool import errors
from yolopool.tls import authority

RULES = SourceRules(SCHEMES, private_networks=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
FILE = b"weights" * 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    authority.create(made, time.time())
    authority.issue(made, "web", "control-plane", ("localhost",), 1, time.time())
    return made


def web(folder: Path, **logins: str) -> Web:
    return Web(RULES, logins, ssl.create_default_context(cafile=str(folder / "ca.pem")))


@pytest.fixture
def serve(folder: Path) -> Any:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "web.pem", folder / "web.key")
    return lambda *turns: broken_server(*turns, tls=context)


def read(server: Server, web: Web, path: str = "/best.pt") -> bytes:
    opened = HttpFile(parse(f"{server.url}{path}"), web)
    _, parts = opened.read(0)
    data = b"".join(parts)
    opened.close()
    return data


def test_a_trusted_server_is_shown_the_login_of_its_host(
    serve: Any, folder: Path, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login me password hunter2\n")
    with serve(Turn(FILE)) as server:
        assert read(server, web(folder, **read_logins(netrc))) == FILE
    assert server.asked[0].login == "Basic bWU6aHVudGVyMg=="


def test_a_login_is_of_one_host_however_it_is_written(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine Models.Local login a password b\ndefault login c password d\n")
    assert read_logins(netrc).keys() == {"models.local"}


def test_a_login_is_not_shown_without_tls(folder: Path) -> None:
    with broken_server(Turn(FILE)) as server:
        server.url = server.url.replace("127.0.0.1", "localhost")
        assert read(server, web(folder, localhost="Basic x")) == FILE
    assert server.asked[0].login == ""


def test_a_server_that_is_not_trusted_or_has_another_name_is_not_read(
    serve: Any, folder: Path
) -> None:
    with serve(Turn(FILE)) as server:
        with pytest.raises(errors.SourceUnavailable, match="TLS"):
            read(server, Web(RULES, {}, ssl.create_default_context()))
        server.url = server.url.replace("localhost", "127.0.0.1")
        with pytest.raises(errors.SourceUnavailable, match="TLS"):
            read(server, web(folder))
    assert server.asked == []


def test_a_redirect_leads_not_out_of_tls(serve: Any, folder: Path) -> None:
    out = Turn(status=302, location="http://localhost:1/best.pt")
    with serve(out) as server, pytest.raises(errors.SourceRefused):
        read(server, web(folder))


def test_a_file_of_logins_that_can_not_be_read_is_told_without_its_words(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine h login me pasword hunter2\n")
    with pytest.raises(ValueError, match="line 1") as told:
        read_logins(netrc)
    assert "hunter2" not in str(told.value)
