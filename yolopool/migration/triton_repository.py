"""A Triton model repository as it lies on a disk: a folder a model, with config.pbtxt and numbered
versions.

Reads, and decides nothing. Nothing in it is run or unpickled.
"""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from yolopool.errors import InvalidOption
from yolopool.migration import pbtxt, triton_config
from yolopool.migration.pbtxt import Entry
from yolopool.migration.triton_config import CONFIG_FILE, TritonConfig

ONNX, CHECKPOINT, TORCHSCRIPT, PLAN, PYTHON = "onnx", "checkpoint", "torchscript", "plan", "python"
OPENVINO, TENSORFLOW, ONNX_FOLDER = "openvino", "tensorflow", "onnx-folder"
_BY_SUFFIX = {
    ".onnx": ONNX,
    ".plan": PLAN,
    ".engine": PLAN,
    ".py": PYTHON,
    ".xml": OPENVINO,
    ".savedmodel": TENSORFLOW,
    ".graphdef": TENSORFLOW,
}
_TORCH_SUFFIXES = (".pt", ".pth", ".torchscript")
# A Python backend's calls of other models: business logic scripting.
_CALLS = re.compile(r"model_name\s*=\s*f?[\"']([\w./-]+)[\"']")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that may hold a model, and what it is by its name and, for torch, its contents."""

    path: Path
    kind: str


@dataclass(frozen=True, slots=True)
class TritonModel:
    """One folder of the repository. `fault` says why its config can't be read."""

    folder: str
    config: TritonConfig
    settings: Entry
    files: dict[int, tuple[ModelFile, ...]] = field(default_factory=dict)
    beside: tuple[ModelFile, ...] = ()
    labels: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    fault: str = ""


def read_repository(path: Path) -> tuple[TritonModel, ...]:
    """Its models by name. Raises InvalidOption if there is none, OSError if it can't be read."""
    folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir()]
    models = tuple(_model(folder) for folder in folders if _is_model(folder))
    if not models:
        raise InvalidOption(
            f"{path} is no Triton model repository: give the folder that tritonserver was started "
            f"with, in which each model has a folder with {CONFIG_FILE} and numbered versions"
        )
    return models


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG_FILE).exists() or any(_versions(folder))


def _versions(folder: Path) -> Iterator[Path]:
    return (inner for inner in folder.iterdir() if inner.is_dir() and _number(inner))


def _number(folder: Path) -> int:
    """Triton reads folders whose name is a number without a zero before it."""
    name = folder.name
    return int(name) if name.isascii() and name.isdigit() and not name.startswith("0") else 0


def _model(folder: Path) -> TritonModel:
    settings, fault = Entry("", 0, ()), ""
    if (folder / CONFIG_FILE).exists():
        try:
            settings = pbtxt.parse((folder / CONFIG_FILE).read_text(errors="replace"))
        except pbtxt.NotTextFormat as error:
            fault = f"{folder / CONFIG_FILE} can't be read: {error}"
    config = triton_config.read(settings)
    files = {_number(version): tuple(_files(version)) for version in _versions(folder)}
    calls = {name for several in files.values() for file in several for name in _called(file)}
    return TritonModel(
        folder.name, config, settings, dict(sorted(files.items())), tuple(_files(folder)),
        _labels(folder, config.label_file), (*config.calls, *sorted(calls)), fault,
    )  # fmt: skip


def _files(folder: Path) -> Iterator[ModelFile]:
    for path in sorted(folder.iterdir()):
        if path.suffix in _TORCH_SUFFIXES and path.is_file():
            yield ModelFile(path, TORCHSCRIPT if _is_torchscript(path) else CHECKPOINT)
        elif path.suffix in _BY_SUFFIX:
            kind = _BY_SUFFIX[path.suffix]
            yield ModelFile(path, ONNX_FOLDER if kind == ONNX and path.is_dir() else kind)


def _is_torchscript(path: Path) -> bool:
    """By the archive's own list: TorchScript has its code in it, a checkpoint has not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _called(file: ModelFile) -> list[str]:
    return _CALLS.findall(file.path.read_text(errors="replace")) if file.kind == PYTHON else []


def _labels(folder: Path, name: str) -> tuple[str, ...]:
    """The class names of a label file, a line each; none if it is not there."""
    path = folder / Path(name).name  # never a file of elsewhere
    if not name or not path.is_file():
        return ()
    return tuple(line.strip() for line in path.read_text(errors="replace").splitlines() if line)
