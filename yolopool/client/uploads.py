"""What is uploaded: an artifact in chunks, an architecture file, calibration images."""

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolopool.client import uploads
from yolopool.errors import ArtifactNotFound, InvalidOption
from yolopool.v1 import model_pb2

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# What an importer decodes of a stranger's; and how many, since each takes a pass of the model, and
# more give no other ranges.
_CALIBRATING = (".jpg", ".jpeg", ".png")
MOST_IMAGES = 300
_EPOCH = (1980, 1, 1, 0, 0, 0)

_LIBRARY_NAME = re.compile(r"[a-z0-9_-]{1,60}\.yaml")
# yolo11n.yaml, yolov8x-p2.yaml: the letter that the library takes for the scale.
_SCALE = re.compile(r"\d([nslmxtcbe])(?:$|-|u)")

CHUNK_BYTES = 1024 * 1024
Progress = Callable[[str, float], None]  # the step under way and its fraction, 0..1


def architecture_text(path: str | Path) -> str:
    try:
        return uploads.read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption(f"{path} is no YAML file of an architecture: {error}") from error


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file to be uploaded, by its content."""

    path: Path
    sha256: str
    size_bytes: int

    def question(self) -> Iterator[model_pb2.UploadArtifactRequest]:
        """A header alone: asks how much of it the server holds."""
        yield self._header(0)

    def parts(
        self, offset: int, progress: Progress | None
    ) -> Iterator[model_pb2.UploadArtifactRequest]:
        """Header and chunks from `offset` on."""
        yield self._header(offset)
        with self.path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(CHUNK_BYTES):
                yield model_pb2.UploadArtifactRequest(chunk=chunk)
                offset += len(chunk)
                if progress is not None:
                    progress("upload", offset / max(1, self.size_bytes))

    def _header(self, offset: int) -> model_pb2.UploadArtifactRequest:
        header = model_pb2.UploadHeader(
            sha256=self.sha256, size_bytes=self.size_bytes, offset=offset
        )
        return model_pb2.UploadArtifactRequest(header=header)


def artifact(path: str | Path) -> Artifact:
    """Reads a file's size and SHA-256. Raises ArtifactNotFound if there is no such file."""
    path = Path(path)
    if not path.is_file():
        raise ArtifactNotFound(f"{path}: no such file")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(path, digest, path.stat().st_size)


def read(path: str | Path) -> str:
    """The text of a file, with the scale that its name says where the text does not; or the name
    itself if there is no such file and the library may have it.

    Raises OSError if it can't be read, UnicodeDecodeError if it is no text.
    """
    file = Path(path)
    if not file.exists() and _LIBRARY_NAME.fullmatch(str(path)):
        return str(path)
    text = file.read_text(encoding="utf-8")
    scale = _SCALE.search(file.stem)
    if scale and re.search(r"^scales\s*:", text, re.M) and not re.search(r"^scale\s*:", text, re.M):
        return f"scale: {scale[1]}\n{text}"
    return text


def images_in(folder: Path, endings: Sequence[str] = ENDINGS) -> Sequence[Path]:
    """The image files of a folder, by name. Raises InvalidOption where there are none."""
    files = (path for path in folder.glob("*") if path.suffix.lower() in endings)
    found = sorted(path for path in files if path.is_file())
    if not found:
        raise InvalidOption(f"{folder} has no images: give a folder of {', '.join(endings)}")
    return found


def write(folder: Path, path: Path) -> None:
    """Writes the JPEG and PNG images of a folder to a zip at `path`; of more than MOST_IMAGES
    every second, third, ... Raises InvalidOption where there are none.
    """
    images = images_in(folder, _CALIBRATING)
    every = -(-len(images) // MOST_IMAGES)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for image in images[::every]:
            archive.writestr(zipfile.ZipInfo(image.name, _EPOCH), image.read_bytes())
