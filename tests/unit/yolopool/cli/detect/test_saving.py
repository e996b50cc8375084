"""Where drawn images go: never over a file in a folder, and two of one name are kept apart."""

from pathlib import Path

import pytest

from yolopool.cli.detect.saving import names_in_folder, targets
from yolopool.errors import InvalidOption


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
def test_names_are_free(images: list[str], there: list[str], given: list[str]) -> None:
    assert names_in_folder(images, there.__contains__) == given


def test_a_folder_is_created_for_several(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert targets([Path("x/a.png"), Path("y/a.png")], folder) == [
        folder / "a.png",
        folder / "a-2.png",
    ]
    assert folder.is_dir()


def test_a_hard_link_is_the_image_too(tmp_path: Path) -> None:
    image, link = tmp_path / "a.png", tmp_path / "b.png"
    image.write_bytes(b"x")
    link.hardlink_to(image)
    with pytest.raises(InvalidOption, match="itself"):
        targets([image], link)


@pytest.mark.parametrize("name", ["b.jpg", "b.webp", "b.TIF", "b.gif", "b.pdf"])
def test_formats_that_are_written(tmp_path: Path, name: str) -> None:
    assert targets([tmp_path / "a.png"], tmp_path / name) == [tmp_path / name]
