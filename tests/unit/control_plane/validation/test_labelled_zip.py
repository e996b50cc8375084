"""The images of a gate, from any zip: read, or refused with a reason; all sizes are bounded."""

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.types.version import Pack
from control_plane.validation import labelled_zip
from control_plane.validation.labelled_zip import open_zip, read_bounded, read_labelled
from yolopool.errors import InvalidOption

PACK = Pack("d", "yolo", "detect", ("bolt", "nut"), 1, 1, 1)
LABEL = "0 .5 .5 .2 .2"


def a_zip(path: Path, files: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def read(path: Path, pack: Pack | None = PACK) -> list[tuple[str, int]]:
    with open_zip(path) as archive:
        return [(image.name, len(image.truths)) for image in read_labelled(archive, pack)]


def test_images_and_labels_in_any_folders(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "x/images/b.png": b"png",
        "x/images/a.jpg": b"jpg",
        "x/labels/a.txt": LABEL,
    }
    path = a_zip(tmp_path / "z", files)
    assert read(path) == [("x/images/a.jpg", 1), ("x/images/b.png", 0)]
    assert read(path, None) == []
    with open_zip(path) as archive:
        assert read_bounded(archive, "x/images/a.jpg", 3) == b"jpg"
        with pytest.raises(InvalidOption, match="more than 2 bytes"):
            read_bounded(archive, "x/images/a.jpg", 2)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a.txt": LABEL}, "0 images"),
        ({"a.jpg": b"x"}, "no labels"),
        ({"a.jpg": b"x", "a.txt": "5 .5 .5 .2 .2"}, "has class 5"),
        ({"a.jpg": b"x", "b.txt": LABEL}, "no labels of these images"),
    ],
)
def test_a_zip_that_is_no_data_says_why(
    tmp_path: Path, files: dict[str, bytes | str], says: str
) -> None:
    with pytest.raises(InvalidOption, match=says):
        read(a_zip(tmp_path / "z", files))


def test_a_classifier_has_no_boxes(tmp_path: Path) -> None:
    path = a_zip(tmp_path / "z", {"a.jpg": b"x", "a.txt": LABEL})
    with pytest.raises(InvalidOption, match="classify"):
        read(path, Pack("d", "yolo", "classify", ("a",), 1, 1, 1))


def test_more_than_is_bounded_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: dict[str, bytes | str] = {f"{n}.jpg": b"x" for n in range(5)}
    path = a_zip(tmp_path / "z", {**files, "0.txt": LABEL + " " * 1000})
    for name, least, says in (
        ("MAX_IMAGES", 4, "5 images"),
        ("MAX_ENTRIES", 5, "6 files"),
        ("MAX_TEXTS_BYTES", 1000, "labels take more"),
        ("MAX_DIRECTORY_BYTES", 100, "files, or more than"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(labelled_zip, name, least)
            with pytest.raises(InvalidOption, match=says):
                read(path)
    assert len(read(path)) == 5


def test_other_compressions_and_a_size_that_lies_are_refused(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"a.jpg": b"x", "a.txt": LABEL + "\n" * 5000}
    with pytest.raises(InvalidOption, match="another way"):
        read(a_zip(tmp_path / "lzma", files, zipfile.ZIP_LZMA))
    path = a_zip(tmp_path / "z", files)
    whole = path.read_bytes()
    size = len(LABEL + "\n" * 5000).to_bytes(4, "little")
    path.write_bytes(whole.replace(size, (20).to_bytes(4, "little")))
    with pytest.raises(InvalidOption):
        read(path)


def test_zip64_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("a.jpg", b"x")
        archive.writestr("a.txt", LABEL)
    content = (tmp_path / "z").read_bytes()
    at = content.rfind(b"PK\5\6")
    locator = b"PK\6\7" + bytes(16)
    (tmp_path / "z").write_bytes(content[:at] + locator + content[at:])
    with pytest.raises(InvalidOption):
        read(tmp_path / "z")


def a_whole_zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", b"x")
        archive.writestr("a.txt", LABEL)
    return made.getvalue()


WHOLE = a_whole_zip()


def test_a_json_of_too_many_values_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold up the control plane for as long as it takes."""
    monkeypatch.setattr(labelled_zip, "MAX_JSON_VALUES", 5)
    for table, says in (("[[],[]]", "is no COCO json"), ("[[],[],[]]", "more than 5 values")):
        path = a_zip(tmp_path / "z", {"a.jpg": b"jpg", "a.json": table})
        with pytest.raises(InvalidOption, match=says):
            read(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_zip_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "z"
    path.write_bytes(
        bytes(content[: data.draw(st.integers(0, len(content)))])
        if data.draw(st.booleans())
        else content
    )
    with suppress(InvalidOption):
        read(path)
