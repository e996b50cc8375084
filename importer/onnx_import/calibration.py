"""Reads the images for int8 calibration from an untrusted zip, in the form of the graph's input.

It unpacks nothing to disk, uses no name in the zip as a path, and decodes only JPEG and PNG.
"""

import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from importer.onnx_import.graph import Input
from importer.refusal import CALIBRATION, ImportRefused

U8 = npt.NDArray[np.uint8]
_MAX_IMAGES, _MAX_IMAGE_BYTES, _MAX_BYTES = 1_000, 64 * 1024**2, 2 * 1024**3
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
# What a damaged archive makes the library raise: OSError where a place in it is before its
# beginning, RuntimeError where a member is encrypted, or packed as is not known here.
_DAMAGE = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, struct.error)
_PROGRESS_REPORTS = 20  # in one iteration
_GREY = 114  # the border, as in workers


class Images:
    """The images of an archive, letterboxed to `size` (height, width).

    Each iteration reads the archive again, one image at a time, and calls `progress` with the share
    that is done.
    """

    def __init__(
        self, path: Path, image: Input, size: tuple[int, int], progress: Callable[[float], None]
    ) -> None:
        """Raises ImportRefused for an archive of another kind."""
        self._path, self._input, self._size, self._progress = path, image, size, progress
        self._members = _members(path)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        """The graph's input by its name: (batch, 3, height, width). Raises ImportRefused."""
        with zipfile.ZipFile(self._path) as archive:
            for number, member in enumerate(self._members):
                if number % (1 + len(self._members) // _PROGRESS_REPORTS) == 0:
                    self._progress(number / len(self._members))
                yield {self._input.name: self._taken(_decoded(archive, member))}

    def _taken(self, image: U8) -> npt.NDArray[np.generic]:
        planes = _letterboxed(image, self._size)[None, :, :, ::-1].transpose(0, 3, 1, 2)
        batch = np.repeat(planes, self._input.batch or 1, axis=0)
        if self._input.dtype == "uint8":
            return np.ascontiguousarray(batch)
        return np.ascontiguousarray(batch / np.float32(255), self._input.dtype)


def _members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except _DAMAGE as error:
        raise _refused(f"they are no zip archive ({error})") from error
    if not 1 <= len(members) <= _MAX_IMAGES:
        raise _refused(f"the archive holds {len(members)} files")
    # Without compression, an archive cannot unpack to more than was sent.
    packed = [
        member
        for member in members
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1
    ]
    if packed:
        raise _refused(f"{_name(packed[0])} in the archive is compressed or encrypted")
    sizes = [member.file_size for member in members]
    if max(sizes) > _MAX_IMAGE_BYTES or sum(sizes) > min(_MAX_BYTES, path.stat().st_size):
        raise _refused(f"the archive holds {sum(sizes)} bytes, or {max(sizes)} in one file")
    return members


def _decoded(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> U8:
    """Decodes an image: uint8 BGR (height, width, 3)."""
    image = None
    try:
        data = archive.read(member)
        if data.startswith(_BEGINNINGS):
            # OpenCV refuses images with more pixels than this process's environment allows.
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (*_DAMAGE, cv2.error) as error:
        raise _refused(f"{_name(member)} can't be read ({_line(error)})") from error
    if image is None:
        raise _refused(f"{_name(member)} is no JPEG or PNG image that can be decoded")
    return np.asarray(image, np.uint8)


def _letterboxed(image: U8, size: tuple[int, int]) -> U8:
    """Scales the image to fit, in the middle of a grey rectangle."""
    gain = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, round(side * gain)) for side in image.shape[:2])
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    whole = np.full((*size, 3), _GREY, np.uint8)
    whole[top : top + height, left : left + width] = cv2.resize(image, (width, height))
    return whole


def _name(member: zipfile.ZipInfo) -> str:
    return repr(member.filename[:60])


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _refused(wrong: str) -> ImportRefused:
    return ImportRefused(
        CALIBRATION,
        f"the images for calibration are refused: {wrong}: give a folder, or an uncompressed zip, "
        f"of 1 to {_MAX_IMAGES} JPEG or PNG images",
    )
