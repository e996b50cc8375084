"""What a person means by each way to name images, videos and streams."""

from pathlib import Path

import pytest

from yolopool.client.media.sources import SourceKind, sources_of
from yolopool.errors import InvalidOption


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "z.mp4", "notes.txt", ".hidden.jpg", "deep/c.jpg", "deep/d.mkv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


def names(folder: Path, text: str | Path) -> list[str]:
    return [str(Path(one.place).relative_to(folder)) for one in sources_of(text)]


def test_a_folder_is_its_images_then_its_videos(folder: Path) -> None:
    assert names(folder, folder) == names(folder, str(folder)) == ["a.PNG", "b.jpg", "z.mp4"]


def test_a_pattern_goes_into_folders(folder: Path) -> None:
    assert names(folder, f"{folder}/*.jpg") == ["b.jpg"]
    assert names(folder, f"{folder}/**/*.*") == [
        "a.PNG",
        "b.jpg",
        "deep/c.jpg",
        "deep/d.mkv",
        "z.mp4",
    ]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder: Path) -> None:
    (folder / "a[1].jpg").touch()
    assert names(folder, f"{folder}/a[1].jpg") == ["a[1].jpg"]


@pytest.mark.parametrize("text", ["deep/none", "none/*.jpg"])
def test_nothing_there_is_said(folder: Path, text: str) -> None:
    (folder / "deep" / "none").mkdir()
    with pytest.raises(InvalidOption, match="no images and no videos"):
        sources_of(f"{folder}/{text}")


@pytest.mark.parametrize(
    ("text", "kind", "name", "stem"),
    [
        ("0", "live", "camera 0", "camera-0"),
        ("02", "live", "camera 2", "camera-2"),
        ("rtsp://me:secret@cam:554/door?x=1", "live", "rtsp://cam:554/door", "cam-554"),
        ("RTSP://cam/door", "live", "rtsp://cam/door", "cam"),
        ("http://host:8080/stream.mjpg", "live", "http://host:8080/stream.mjpg", "host-8080"),
        ("https://host/films/one.mp4", "video", "https://host/films/one.mp4", "one"),
        ("udp://239.0.0.1:1234", "live", "udp://239.0.0.1:1234", "239.0.0.1-1234"),
        ("no/such.jpg", "image", "no/such.jpg", "such"),
        ("no/such.webm", "video", "no/such.webm", "such"),
        ("no/such", "image", "no/such", "such"),
    ],
)  # fmt: skip
def test_each_way_to_name_one(text: str, kind: str, name: str, stem: str) -> None:
    (source,) = sources_of(text)
    assert (source.kind, source.name, source.stem) == (SourceKind(kind), name, stem)


def test_a_file_goes_before_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("0").touch()
    assert sources_of("0")[0].kind is SourceKind.IMAGE
    # A path is never a camera.
    assert sources_of(Path("1"))[0].kind is SourceKind.IMAGE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://host/a.jpg", "curl"),
        ("ftp://host/a.mp4", "one of http"),
        ("rtsp://host:none/", "no address"),
    ],
)
def test_addresses_that_can_not_be_read(text: str, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        sources_of(text)


def test_a_text_that_is_no_path_is_an_image_that_can_not_be_read() -> None:
    assert sources_of("/9j/" * 500)[0].kind is SourceKind.IMAGE
