"""Files of mounts: one that hangs, and names that are no text."""

import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from control_plane.sources.local_file import LocalFile, list_folder
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import SCHEMES, parse


def test_a_read_that_hangs_holds_up_nobody_who_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a lost mount: a pipe that nobody writes to stands for it."""
    os.mkfifo(tmp_path / "best.pt")
    monkeypatch.setattr("stat.S_ISREG", lambda _: True)
    rules = SourceRules(SCHEMES, roots=(str(tmp_path),))
    opened = LocalFile(parse(str(tmp_path / "best.pt")), rules)
    os.set_blocking(opened._file.fileno(), True)
    writer = os.open(tmp_path / "best.pt", os.O_WRONLY)
    with ThreadPoolExecutor(2) as threads:
        reading = threads.submit(next, opened._parts(), b"")
        try:
            wait([reading], timeout=0.1)
            threads.submit(opened.close).result(timeout=5)
        finally:
            os.close(writer)  # the read ends


def test_a_name_that_is_no_text_is_passed_over(tmp_path: Path) -> None:
    """It has no URI that could be read again, and no message could carry it."""
    for name in (b"best.pt", b"b\xff.pt"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    rules = SourceRules(SCHEMES, roots=(str(tmp_path),))
    found = list_folder(parse(f"{tmp_path.as_uri()}/"), rules)
    assert [file.name for file in found] == ["best.pt"]
