"""What a person means by a file, a folder, a pattern, a camera's number or a stream's address."""

import glob
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from yolopool.errors import InvalidOption

# Those that the model library's predict takes from a folder, and GIF, of which the pool reads the
# first picture.
IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png",
    ".tif", ".tiff", ".webp",
)  # fmt: skip
VIDEO_SUFFIXES = (
    ".asf", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv",
)  # fmt: skip
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_LIVE = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")
_FILES_OF_WEB = ("http", "https")
_PATTERN = re.compile(r"[*?\[]")


class SourceKind(StrEnum):
    IMAGE = "image"
    VIDEO = "video"  # has an end, and every frame counts
    LIVE = "live"  # goes on, and the newest frame counts


@dataclass(frozen=True, slots=True)
class Source:
    """One image, video or live stream. `place` opens it; `name` is for people and holds no
    password; `stem` names files that are written of it.
    """

    kind: SourceKind
    place: str
    name: str
    stem: str


def sources_of(given: str | Path) -> list[Source]:
    """What is meant, in the order of the model library's predict: of a folder its images, then its
    videos, each sorted by name, without the folders inside; of a pattern (`**` goes into folders)
    the same.

    A file of another suffix is taken for an image, and so is one that is not there: opening it
    says so. Raises InvalidOption for a folder or a pattern without images and videos, and for an
    address that can't be read.
    """
    text = str(given)
    path = Path(text)
    if isinstance(given, str) and not _exists(path):
        if address := _ADDRESS.match(text):
            return [_of_address(text, address[1].lower())]
        if text.isascii() and text.isdecimal():
            return [Source(SourceKind.LIVE, text, f"camera {int(text)}", f"camera-{int(text)}")]
    if _exists(path) and path.is_dir():
        return _known([one for one in path.iterdir() if one.name[0] != "."], text)
    if _PATTERN.search(text) and not _exists(path):
        # Path.glob takes no pattern that begins at the root.
        found = glob.glob(text, recursive=True)  # noqa: PTH207
        return _known([Path(name) for name in found], text)
    return [_of_file(path)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no path at all, such as base64 text
        return False


def _known(paths: list[Path], text: str) -> list[Source]:
    """The images and videos of these paths."""
    files = [_of_file(path) for path in sorted(paths) if _is_known(path)]
    if not files:
        raise InvalidOption(
            f"{text} has no images and no videos: give a folder or a pattern that has some, such "
            "as 'photos/*.jpg'"
        )
    return sorted(files, key=lambda source: source.kind is SourceKind.VIDEO)


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) and path.is_file()


def _of_file(path: Path) -> Source:
    kind = SourceKind.VIDEO if path.suffix.lower() in VIDEO_SUFFIXES else SourceKind.IMAGE
    if _exists(path) and path.is_char_device():  # a camera by its device
        kind = SourceKind.LIVE
    return Source(kind, str(path), str(path), path.stem)


def _of_address(text: str, scheme: str) -> Source:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidOption(f"{text!r} is no address ({error})") from error
    if scheme not in _LIVE:
        raise InvalidOption(f"{scheme}:// can't be read: one of {', '.join(_LIVE)}, or a file")
    suffix = PurePosixPath(parts.path).suffix.lower()
    shown = f"{scheme}://{host}{f':{port}' if port else ''}{parts.path}"
    if scheme in _FILES_OF_WEB and suffix in IMAGE_SUFFIXES:
        raise InvalidOption(
            f"{shown} is an image: fetch it, and give the file or pipe its bytes: "
            "curl -s ADDRESS | yolopool detect -"
        )
    is_file = scheme in _FILES_OF_WEB and suffix in VIDEO_SUFFIXES
    kind = SourceKind.VIDEO if is_file else SourceKind.LIVE
    stem = PurePosixPath(parts.path).stem if is_file else f"{host}-{port}" if port else host
    return Source(kind, text, shown, stem or scheme)
