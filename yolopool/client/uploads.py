"""Uploads: a file in chunks, an architecture as text, calibration images as an archive; and the
client methods of several calls: upload, register, build.

The methods are generators: they yield every call, pause and file access to the client that runs
them.
"""

import hashlib
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from yolopool.client import calls, fleet_records, requests
from yolopool.client.calls import Answer, Call
from yolopool.client.model_records import ModelVersion, version_of
from yolopool.client.requests import RegisterOptions
from yolopool.client.training import run_folder
from yolopool.client.training.run_folder import TrainingRun
from yolopool.errors import ArtifactNotFound, InvalidOffset, InvalidOption, Unavailable
from yolopool.v1 import model_pb2
from yolopool.vocabulary import IMAGE_SUFFIXES

# The importer decodes no other formats of an uploaded archive.
_CALIBRATION_SUFFIXES = (".jpg", ".jpeg", ".png")
# Each image costs a pass of the model, and more than these do not change the ranges.
MAX_CALIBRATION_IMAGES = 300
# A fixed time in the archive, so that the same images are the same upload.
_EPOCH = (1980, 1, 1, 0, 0, 0)

_LIBRARY_NAME = re.compile(r"[a-z0-9_-]{1,60}\.yaml")
# yolo11n.yaml, yolov8x-p2.yaml: the letter that the model library takes as the scale.
_SCALE = re.compile(r"\d([nslmxtcbe])(?:$|-|u)")

CHUNK_BYTES = 1024 * 1024
UPLOAD_TIMEOUT_S = 600.0
UPLOAD_ATTEMPTS = 5
POLL_S = 0.2
Progress = Callable[[str, float], None]  # the current step and its fraction, 0..1


def sweep(
    grace_s: float | None = None, *, dry_run: bool = False, timeout_s: float = UPLOAD_TIMEOUT_S
) -> Call[tuple[fleet_records.UnusedFile, ...]]:
    """Removes uploads and packs that no version uses from the store of the control plane that is
    called, once they were not used for `grace_s` seconds (None: as the control plane is set); with
    `dry_run` only finds them. Returns what it found, the largest first.
    """
    request = model_pb2.SweepStoreRequest(grace_s=grace_s, dry_run=dry_run)
    return Call("model", "SweepStore", request, timeout_s, fleet_records.unused_files_of)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file to upload, named by its content."""

    path: Path
    sha256: str
    size_bytes: int

    def question(self) -> Iterator[model_pb2.UploadArtifactRequest]:
        """A header alone: asks how much of the file the server holds."""
        yield self._header(0)

    def parts(
        self, offset: int, progress: Progress | None
    ) -> Iterator[model_pb2.UploadArtifactRequest]:
        """A header, then the chunks from `offset` on."""
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


def read_artifact(path: str | Path) -> Artifact:
    """Reads a file's size and SHA-256. Raises ArtifactNotFound if there is no such file."""
    path = Path(path)
    if not path.is_file():
        raise ArtifactNotFound(f"{path}: no such file: check the path")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(path, digest, path.stat().st_size)


def read_architecture(path: str | Path) -> str:
    """The text of an architecture file. If only its name says the scale, that is added.

    If there is no such file and the model library may have one of this name, returns the name.
    Raises OSError if it cannot be read, UnicodeDecodeError if it is not text.
    """
    file = Path(path)
    if not file.exists() and _LIBRARY_NAME.fullmatch(str(path)):
        return str(path)
    text = file.read_text(encoding="utf-8")
    scale = _SCALE.search(file.stem)
    if scale and re.search(r"^scales\s*:", text, re.M) and not re.search(r"^scale\s*:", text, re.M):
        return f"scale: {scale[1]}\n{text}"
    return text


def images_in(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Sequence[Path]:
    """The image files of a folder, sorted by name. Raises InvalidOption if there are none."""
    files = (path for path in folder.glob("*") if path.suffix.lower() in suffixes)
    found = sorted(path for path in files if path.is_file())
    if not found:
        raise InvalidOption(f"{folder} has no images: give a folder of {', '.join(suffixes)}")
    return found


def write_calibration_archive(folder: Path, path: Path) -> None:
    """Writes the JPEG and PNG images of a folder to a zip at `path`.

    Of more than MAX_CALIBRATION_IMAGES only every second, third, ... is taken. Raises
    InvalidOption if there are none.
    """
    images = images_in(folder, _CALIBRATION_SUFFIXES)
    every = -(-len(images) // MAX_CALIBRATION_IMAGES)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for image in images[::every]:
            archive.writestr(zipfile.ZipInfo(image.name, _EPOCH), image.read_bytes())


# --- methods of the clients that send several calls ---------------------------------------------


@dataclass(frozen=True, slots=True)
class Sleep:
    """A pause between two calls."""

    seconds: float


@dataclass(frozen=True, slots=True)
class FileWork:
    """Reading or writing files; the asyncio client runs it on a thread."""

    run: Callable[[], Any]


# A method of several calls. It yields each step and is sent the step's result, or its error.
Flow = Generator[Call[Any] | Sleep | FileWork, Any, Answer]


def upload(
    path: str | Path,
    *,
    progress: Progress | None = None,
    timeout_s: float = UPLOAD_TIMEOUT_S,
) -> Flow[Artifact]:
    """Stores a file by its content. A broken upload resumes where it ended."""
    artifact: Artifact = yield FileWork(partial(read_artifact, path))
    return (yield from store(artifact, progress=progress, timeout_s=timeout_s))


def store(
    artifact: Artifact, *, progress: Progress | None = None, timeout_s: float = UPLOAD_TIMEOUT_S
) -> Flow[Artifact]:
    """As `upload`, of a file whose digest is known."""
    until = time.monotonic() + timeout_s
    for attempt in range(UPLOAD_ATTEMPTS):
        try:
            left_s = until - time.monotonic()
            held: model_pb2.UploadArtifactResponse = yield _upload(artifact.question(), left_s)
            if not held.complete:
                yield _upload(artifact.parts(held.received_bytes, progress), left_s)
            return artifact
        except (Unavailable, InvalidOffset):
            if attempt == UPLOAD_ATTEMPTS - 1:
                raise
        yield Sleep(POLL_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises, this is a bug")


def _upload(
    requests: Iterator[model_pb2.UploadArtifactRequest], timeout_s: float
) -> Call[model_pb2.UploadArtifactResponse]:
    return Call("model", "UploadArtifact", requests, timeout_s, lambda reply: reply)


def register(
    name: str,
    path: str | Path,
    *,
    wait: bool = True,
    progress: Progress | None = None,
    timeout_s: float = UPLOAD_TIMEOUT_S,
    **options: Unpack[RegisterOptions],
) -> Flow[ModelVersion]:
    requests.refuse_unknown("register", options, RegisterOptions)
    until = time.monotonic() + timeout_s
    run: TrainingRun = yield FileWork(partial(run_folder.find, path))
    options["metadata"] = {**run.metadata, **options.get("metadata", {})}
    artifact = yield from upload(run.file, progress=progress, timeout_s=timeout_s)
    architecture = options.get("architecture")
    text = architecture_text(architecture) if architecture is not None else ""
    request = requests.register(name, artifact.sha256, artifact.path.name, text, options)
    signature = options.get("signature")
    request.signature = yield FileWork(partial(signature_of, artifact.path, signature))
    left_s = until - time.monotonic()
    version: ModelVersion = yield Call(
        "model", "RegisterModel", request, left_s, lambda reply: version_of(reply.version)
    )
    return (yield from imported(version, wait, progress, until))


def signature_of(file: Path, given: str | Path | None) -> str:
    """The text of a signature, by default of the one beside the file. Raises InvalidOption."""
    beside = file.with_name(f"{file.name}.minisig")
    if given is None and not beside.is_file():
        return ""
    return signature_text(given if given is not None else beside)


def signature_text(given: str | Path) -> str:
    """The text of a signature's file. Raises InvalidOption."""
    path = Path(given)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption(
            f"{path} is no signature ({error}): give the .minisig file of minisign"
        ) from error


def architecture_text(path: str | Path) -> str:
    """The text for a registration. Raises InvalidOption."""
    try:
        return read_architecture(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption(
            f"{path} is not an architecture file ({error}): give a YAML file"
        ) from error


def upload_images(
    folder: Path, *, progress: Progress | None = None, timeout_s: float = UPLOAD_TIMEOUT_S
) -> Flow[Artifact]:
    """Stores the calibration images of a folder, as one archive."""
    with tempfile.TemporaryDirectory(prefix="yolopool-") as scratch:
        archive = Path(scratch) / "calibration.zip"
        yield FileWork(partial(write_calibration_archive, folder, archive))
        return (yield from upload(archive, progress=progress, timeout_s=timeout_s))


def build(
    model: str,
    *,
    backend: str,
    precision: str,
    device_kind: str = "cpu",
    calibration: str | Path | None = None,
    wait: bool = True,
    progress: Progress | None = None,
    timeout_s: float = UPLOAD_TIMEOUT_S,
) -> Flow[ModelVersion]:
    """Builds a version for another backend (torch, onnx, openvino, tensorrt) or precision (fp32,
    fp16, bf16, int8). int8 needs `calibration`: a folder of images like those it will be sent.

    Returns the build as a model with a name of its own; `set_variant` serves the version by it.
    With wait, returns when it is READY or FAILED (see `state`, `reason`).
    """
    until, digest = time.monotonic() + timeout_s, ""
    if calibration is not None:
        images = Path(calibration)
        artifact = yield from upload_images(images, progress=progress, timeout_s=timeout_s)
        digest = artifact.sha256
    request = model_pb2.BuildModelRequest(
        model=model,
        backend=backend,
        precision=precision,
        device_kind=device_kind,
        calibration=digest,
    )
    made: ModelVersion = yield Call(
        "model",
        "BuildModel",
        request,
        calls.READ_TIMEOUT_S,
        lambda reply: version_of(reply.build),
    )
    return (yield from imported(made, wait, progress, until))


def imported(
    version: ModelVersion, wait: bool, progress: Progress | None, until: float
) -> Flow[ModelVersion]:
    """With wait, polls the version until its import ends or the time is up."""
    while wait and _is_importing(version, progress) and time.monotonic() < until:
        yield Sleep(POLL_S)
        version = (yield calls.model(version.name)).versions[0]
    return version


def _is_importing(version: ModelVersion, progress: Progress | None) -> bool:
    """Whether the import is still running; reports how far it is."""
    if progress is not None:
        progress(version.step or version.state.lower(), version.progress)
    return version.state in ("UPLOADED", "IMPORTING")
