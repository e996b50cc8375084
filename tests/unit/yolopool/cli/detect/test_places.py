"""Where results go: never over a file in a folder, and two of one name are kept apart."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from yolopool.cli.detect.places import STDOUT, Form, free_stems, settled
from yolopool.client.media.sources import Source, SourceKind
from yolopool.errors import InvalidOption


def image(path: Path | str) -> Source:
    return Source(SourceKind.IMAGE, str(path), str(path), Path(path).stem)


def video(path: Path | str, kind: SourceKind = SourceKind.VIDEO) -> Source:
    return Source(kind, str(path), str(path), Path(path).stem)


def pictures(folder: Path, sources: Sequence[Source], forms: Sequence[str] = ()) -> list[str]:
    places = settled(sources, folder, forms)
    return [str(path.relative_to(folder)) for path in places.files.values()]


@pytest.mark.parametrize(
    ("images", "there", "given"),
    [
        (["a.png"], [], ["a.png"]),
        (["a.png", "a.png"], [], ["a.png", "a-2.png"]),
        (["a.png"], ["a.png"], ["a-2.png"]),
        (["a.png", "a.png"], ["a.png", "a-2.png"], ["a-3.png", "a-4.png"]),
        (["a.png", "a-2.png", "a.png"], [], ["a.png", "a-2.png", "a-3.png"]),
        (["a.JPG", "a.jpg"], [], ["a.JPG", "a.jpg"]),
        # What can't be written in its own format.
        (["a.heic", "a", "a.tar.gz"], [], ["a.png", "a-2.png", "a.tar.png"]),
        ([".jpg"], [], [".jpg.png"]),
    ],
)
def test_names_are_free(
    tmp_path: Path, images: list[str], there: list[str], given: list[str]
) -> None:
    for name in there:
        (tmp_path / name).touch()
    assert pictures(tmp_path, [image(name) for name in images]) == given


def test_a_stem_is_free_in_every_form() -> None:
    both = [lambda stem: [f"{stem}.png", f"labels/{stem}.txt"]] * 2
    assert free_stems(["a", "a"], both, {"labels/a.txt"}.__contains__) == ["a-2", "a-3"]


def test_a_picture_and_its_label_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").touch()
    places = settled([image("a.png"), image("b/a.jpg")], tmp_path, ["images", "yolo"])
    assert places.stems == ["a-2", "a-3"]
    assert list(places.files.values()) == [tmp_path / "a-2.png", tmp_path / "a-3.jpg"]


def test_a_folder_is_created_for_several(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert pictures(folder, [image("x/a.png"), image("y/a.png")]) == ["a.png", "a-2.png"]
    assert folder.is_dir()


def test_a_hard_link_is_the_image_too(tmp_path: Path) -> None:
    original, link = tmp_path / "a.png", tmp_path / "b.png"
    original.write_bytes(b"x")
    link.hardlink_to(original)
    with pytest.raises(InvalidOption, match="itself"):
        settled([image(original)], link, ())
    clip, link = tmp_path / "a.mp4", tmp_path / "b.mp4"
    clip.write_bytes(b"x")
    link.hardlink_to(clip)
    with pytest.raises(InvalidOption, match="itself"):
        settled([video(clip)], link, ())


@pytest.mark.parametrize("name", ["b.jpg", "b.webp", "b.TIF", "b.gif", "b.pdf"])
def test_formats_that_are_written(tmp_path: Path, name: str) -> None:
    places = settled([image(tmp_path / "a.png")], tmp_path / name, ())
    assert list(places.files.values()) == [tmp_path / name]


def test_each_kind_has_its_own_form(tmp_path: Path) -> None:
    sources = [image("a.png"), video("b.mkv"), video("rtsp://c", SourceKind.LIVE)]
    places = settled(sources, tmp_path, ())
    assert places.forms == {Form.IMAGES, Form.VIDEO}
    assert [path.name for path in places.files.values()] == ["a.png", "b.mkv", "c.mp4"]


def test_a_video_of_another_format_becomes_mp4(tmp_path: Path) -> None:
    assert pictures(tmp_path, [video("a.avi"), video("a.mp4")]) == ["a.mp4", "a-2.mp4"]


@pytest.mark.parametrize(
    ("name", "words", "form"),
    [
        ("x.jsonl", [], Form.JSONL), ("x.csv", [], Form.CSV), ("x.json", ["coco"], Form.COCO),
        ("-", ["jsonl"], Form.JSONL), ("-", ["csv"], Form.CSV), ("-", ["coco"], Form.COCO),
    ],
)  # fmt: skip
def test_one_file_of_all(tmp_path: Path, name: str, words: list[str], form: Form) -> None:
    save = STDOUT if name == "-" else tmp_path / name
    places = settled([image("a.png"), video("b.mp4")], save, words)
    assert set(places.forms) == {form}
    assert dict(places.lists) == {form: save}


def test_lists_in_a_folder_have_free_names(tmp_path: Path) -> None:
    (tmp_path / "results.csv").touch()
    places = settled([image("a.png")], tmp_path, ["csv", "jsonl", "coco"])
    assert {path.name for path in places.lists.values()} == {
        "results-2.csv", "results.jsonl", "coco.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sources", "save", "words", "said"),
    [
        (["a.png"], None, ["csv"], "needs a place"),
        (["a.png"], "x", ["pdf"], "one of images, video"),
        (["a.png"], "-", [], "one text"),
        (["a.png"], "-", ["csv", "jsonl"], "one text"),
        (["a.png"], "-", ["yolo"], "one text"),
        (["a.png", "b.png"], "x.jpg", [], "give a folder"),
        (["a.mp4"], "x.jpg", [], "give a folder"),
        (["a.mp4"], "x.avi", [], "give a folder"),
        (["a.png"], "x.json", ["csv"], "give a folder"),
        (["a.png"], "none/x.csv", [], "create it first"),
        (["a.mp4"], "none/x.mp4", [], "create it first"),
    ],
)
def test_what_can_not_be_meant(
    tmp_path: Path, sources: list[str], save: str | None, words: list[str], said: str
) -> None:
    known = [image(name) if name.endswith("png") else video(name) for name in sources]
    place = None if save is None else STDOUT if save == "-" else tmp_path / save
    with pytest.raises(InvalidOption, match=said):
        settled(known, place, words)
    assert list(tmp_path.iterdir()) == []
