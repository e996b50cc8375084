"""Digests that are kept: a file that changed is read again, whatever its time says."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from yolopool.client.fleet_file.digest_cache import RACY_S, DigestCache

NOW_S = 1_800_000_000.0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "digests.json"


def write(path: Path, data: bytes, age_s: float = 3600.0) -> Path:
    path.write_bytes(data)
    os.utime(path, (NOW_S - age_s, NOW_S - age_s))
    return path


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def kept(place: Path) -> list[str]:
    return [Path(name).name for name in json.loads(place.read_text())["files"]]


def test_a_file_that_did_not_change_is_not_read(place: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", b"one")
    cache = DigestCache(place, NOW_S)
    assert cache.file(path) == sha(b"one")
    cache.save()
    write(path, b"two")  # of the same size and time: only who reads it sees that
    assert DigestCache(place, NOW_S).file(path) == sha(b"one")
    write(path, b"two", age_s=3599.0)
    assert DigestCache(place, NOW_S).file(path) == sha(b"two")
    write(path, b"three")
    assert DigestCache(place, NOW_S).file(path) == sha(b"three")


def test_a_file_that_may_change_within_its_time_is_not_kept(place: Path, tmp_path: Path) -> None:
    fresh = write(tmp_path / "fresh.pt", b"one", age_s=RACY_S / 2)
    old = write(tmp_path / "old.pt", b"one", age_s=RACY_S * 2)
    cache = DigestCache(place, NOW_S)
    assert (cache.file(fresh), cache.file(old)) == (sha(b"one"), sha(b"one"))
    cache.save()
    assert kept(place) == ["old.pt"]


def test_several_files_are_kept_as_one(place: Path, tmp_path: Path) -> None:
    images = [write(tmp_path / f"{name}.png", name.encode()) for name in "ab"]
    made: list[str] = []

    def digest(cache: DigestCache, paths: list[Path]) -> str:
        return cache.files("images", paths, lambda: made.append("made") or sha(b"zip"))  # type: ignore[func-returns-value]

    cache = DigestCache(place, NOW_S)
    assert digest(cache, images) == sha(b"zip")
    cache.save()
    assert digest(DigestCache(place, NOW_S), images) == sha(b"zip")
    assert made == ["made"]
    assert digest(DigestCache(place, NOW_S), images[:1]) == sha(b"zip")
    assert made == ["made", "made"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2, "files": {}}', '{"format": 1, "files": {"a": 3}}', "\0"]
)
def test_a_damaged_cache_costs_time_alone(place: Path, tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.pt", b"one")
    place.parent.mkdir()
    place.write_text(text)
    cache = DigestCache(place, NOW_S)
    assert cache.file(path) == sha(b"one")
    cache.save()
    assert kept(place) == ["a.pt"]


def test_a_place_that_can_not_be_written_is_no_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", b"one")
    (tmp_path / "file").write_text("")
    cache = DigestCache(tmp_path / "file" / "digests.json", NOW_S)
    assert cache.file(path) == sha(b"one")
    cache.save()
    with pytest.raises(FileNotFoundError):
        cache.file(tmp_path / "absent.pt")
