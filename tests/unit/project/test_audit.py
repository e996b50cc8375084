"""The audit of packages: what OSV says, and that "not looked up" is no "nothing found"."""

import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

CI = Path(__file__).parents[3] / ".ci"


@pytest.fixture(scope="module")
def audit() -> Any:
    """The script, with what it imports from its own folder."""
    sys.path.insert(0, str(CI))
    try:
        spec = importlib.util.spec_from_file_location("audit", CI / "audit.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(CI))
    return module


def record(*events: dict[str, str], **more: Any) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}]
    package = {"ecosystem": "PyPI", "name": "Py_Thing"}
    return {"id": "X-1", "affected": [{"package": package, "ranges": ranges}], **more}


@pytest.mark.parametrize(
    ("version", "events", "is_hit"),
    [
        ("1.9", [{"introduced": "0"}, {"fixed": "2.0"}], True),
        ("2.0", [{"introduced": "0"}, {"fixed": "2.0"}], False),
        ("1.10", [{"introduced": "1.9"}, {"fixed": "1.11"}], True),
        ("2.0", [{"introduced": "1.0"}, {"last_affected": "2.0"}], True),
        ("2.1", [{"introduced": "1.0"}, {"last_affected": "2.0"}], False),
        ("3.5", [{"introduced": "0"}, {"fixed": "2"}, {"introduced": "3"}], True),
        ("2.5", [{"introduced": "3"}, {"introduced": "0"}, {"fixed": "2"}], False),
        ("2.0", [], False),
    ],
)
def test_a_version_is_within_a_range(
    audit: Any, version: str, events: list[dict[str, str]], is_hit: bool
) -> None:
    assert bool(list(audit.hits(record(*events), {"py-thing": version}))) is is_hit


def test_versions_may_be_listed_and_records_withdrawn(audit: Any) -> None:
    listed = record(versions=[])
    listed["affected"][0]["versions"] = ["1.0"]
    assert list(audit.hits(listed, {"py-thing": "1.0"}))
    assert not list(audit.hits(listed, {"py-thing": "1.1"}))
    assert not list(audit.hits(listed | {"withdrawn": "2026-01-01"}, {"py-thing": "1.0"}))
    other = record({"introduced": "0"})
    other["affected"][0]["package"]["ecosystem"] = "npm"
    assert not list(audit.hits(other, {"py-thing": "1.0"}))


def test_a_database_is_a_zip_or_its_folder(
    audit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.dumps(record({"introduced": "0"}))
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "X-1.json").write_text(text)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("X-1.json", text)
    for database in (tmp_path / "unpacked", tmp_path / "all.zip"):
        assert audit.by_file({"py-thing": "1.0"}, database) == 1
        assert "py-thing 1.0: X-1" in capsys.readouterr().out
        assert audit.by_file({"other": "1.0"}, database) == 0


def test_what_could_not_be_looked_up_is_said(
    audit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = {"name": "a", "version": "1", "vulns": []}
    assert audit.told([clean], 1) == 0
    capsys.readouterr()
    # As pip-audit says it of an index without advisories, and of none that answers.
    skipped = {"name": "b", "skip_reason": "Dependency not found on PyPI"}
    assert audit.told([clean, skipped], 2) == 2
    assert "NOT AUDITED: nothing could be learnt of 1 packages" in capsys.readouterr().err
    assert audit.told([], 2) == 2
    fault = {"id": "X-1", "fix_versions": ["2"]}
    assert audit.told([clean | {"vulns": [fault]}, skipped], 2) == 1
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    (tmp_path / "empty").mkdir()
    for database in ("missing.zip", "broken.zip", "empty"):
        assert audit.by_file({"a": "1"}, tmp_path / database) == 2
