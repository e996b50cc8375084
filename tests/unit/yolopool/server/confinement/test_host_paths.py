"""Which folders a confined process gets: those of installed packages, and no others of its path."""

import sys
from pathlib import Path

import pytest

from yolopool.server.confinement import host_paths, landlock


def test_of_the_module_path_only_installed_packages_are_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, current = tmp_path / "target", tmp_path / "current"
    (target / "thing-1.0.dist-info").mkdir(parents=True)
    current.mkdir()
    monkeypatch.setattr(sys, "path", ["", str(current), str(target), *sys.path])
    assert str(target) in host_paths.installed()
    assert not {"", str(current)} & set(host_paths.installed())
    granted = {place for place, _ in host_paths.of_python(("yolopool",))}
    assert {target, Path(sys.prefix), Path(host_paths.__file__).parents[2]} <= granted
    assert current not in granted


def test_libraries_of_the_environment_are_granted_where_they_have_a_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/driver::relative")
    granted = {place for place, _ in host_paths.of_system()}
    assert Path("/opt/driver") in granted
    assert Path("relative") not in granted
    assert Path() not in granted


def test_nothing_of_users_is_granted() -> None:
    """Neither these nor a folder above them."""
    every = (
        *host_paths.of_python(("yolopool",)),
        *host_paths.of_system(),
        *host_paths.of_network(),
    )
    for secret in ("/etc/shadow", "/etc/passwd", "/etc/ssl/private/key.pem", "/home/a/.ssh/id"):
        assert not any(Path(secret).is_relative_to(place) for place, _ in every), secret


def test_a_store_among_libraries_is_said(tmp_path: Path) -> None:
    granted = ((tmp_path / "venv", landlock.RUN), (tmp_path / "file", landlock.READ_FILE))
    (tmp_path / "venv").mkdir()
    own, stored = tmp_path / "venv" / "scratch", tmp_path / "venv" / "store" / "artifact"
    assert "move one of them" in host_paths.readable_beside([stored], own, granted)
    assert host_paths.readable_beside([own / "artifact"], own, granted) == ""
    assert host_paths.readable_beside([tmp_path / "elsewhere" / "artifact"], own, granted) == ""
