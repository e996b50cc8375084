"""Reads the labelled images of a gate from a stranger's zip: nothing is unpacked to the disk, no
image is decoded here, and every size is bounded before it is read.
"""

import errno
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from control_plane.types.version import Pack
from yolopool.errors import InvalidOption
from yolopool.evaluation import tally
from yolopool.evaluation.labelled_images import LabelledImage, is_image, labelled
from yolopool.vocabulary import LABEL_SUFFIXES

MAX_IMAGES, MAX_ENTRIES = 5000, 20_000
MAX_IMAGE_BYTES, MAX_TEXTS_BYTES, MAX_DIRECTORY_BYTES = 32 << 20, 64 << 20, 4 << 20
# Of a json: to read it holds up all of this process, and takes many times its bytes.
MAX_JSON_VALUES = 5_000_000
# The end of a zip: the record of its list, a comment after it, what zip64 puts before it.
_END_BYTES = 22
_TAIL_BYTES = _END_BYTES + 65_535 + 20
# Others may unpack to any size before the first byte is seen.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, NotImplementedError, EOFError, ValueError,
    RuntimeError,
)  # fmt: skip


def open_zip(path: Path) -> zipfile.ZipFile:
    """Blocks. Raises InvalidOption for what is no zip that can be read, OSError."""
    with _refusing():
        _check_directory(path)
        return zipfile.ZipFile(path)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise InvalidOption(f"the data is no zip that can be read: {str(error)[:200]}") from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # An entry that would begin before the file does.
        raise InvalidOption("the data is no zip that can be read: its list is wrong") from None


def _check_directory(path: Path) -> None:
    """The list of entries is read whole: it must not be larger than memory is to be spent on."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END_BYTES:
        raise zipfile.BadZipFile("it has no list of its files")
    size = int.from_bytes(tail[at + 12 : at + 16], "little")
    if size > MAX_DIRECTORY_BYTES or tail[max(0, at - 20) : at].startswith(b"PK\6\7"):
        raise zipfile.BadZipFile(f"it has more than {MAX_ENTRIES} files, or more than 4 GiB")


def read_labelled(archive: zipfile.ZipFile, pack: Pack | None) -> tuple[LabelledImage, ...]:
    """The images, with what is on each by the model's classes; without a pack the names alone are
    looked at. Blocks. Raises InvalidOption, OSError.
    """
    entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
    if len(entries) > MAX_ENTRIES:
        raise InvalidOption(f"the zip has {len(entries)} files: give at most {MAX_ENTRIES}")
    if any(entry.compress_type not in _METHODS for entry in entries):
        raise InvalidOption("the zip is compressed in another way than deflate")
    images = sorted({entry.filename for entry in entries if is_image(entry.filename)})
    if not 1 <= len(images) <= MAX_IMAGES:
        raise InvalidOption(f"the zip has {len(images)} images: give 1 to {MAX_IMAGES}")
    texts = [entry for entry in entries if entry.filename.lower().endswith(LABEL_SUFFIXES)]
    if sum(entry.file_size for entry in texts) > MAX_TEXTS_BYTES:
        raise InvalidOption(f"the labels take more than {MAX_TEXTS_BYTES >> 20} MiB")
    if not texts:
        raise InvalidOption("the zip has no labels: add a .txt for each image, or a COCO json")
    if pack is None:
        return ()
    if pack.task not in tally.TASKS:
        raise InvalidOption(
            f"the model is of the task {pack.task}: a gate is for {', '.join(tally.TASKS)}"
        )
    files = {
        entry.filename: partial(_read_text, archive, entry.filename, entry.file_size)
        for entry in texts
    }
    return labelled(images, files, pack.task, pack.class_names)


def _read_text(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    content = read_bounded(archive, name, most)
    if name.endswith(".json") and sum(map(content.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise InvalidOption(f"{name[:200]} in the zip has more than {MAX_JSON_VALUES} values")
    return content


def read_bounded(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """An entry of at most so many bytes: a zip may say less of it than there is. Blocks. Raises
    InvalidOption, OSError.
    """
    with _refusing(), archive.open(name) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InvalidOption(f"{name[:200]} in the zip has more than {most} bytes")
    return content
