"""A model file and what its training left beside it: args.yaml and results.csv.

A training writes runs/detect/train3/weights/best.pt, and its texts into runs/detect/train3.
"""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yolopool.client.training import model_name
from yolopool.client.training.model_name import ChosenName
from yolopool.errors import ArtifactNotFound
from yolopool.vocabulary import MAX_METADATA_BYTES

_BEST, _ARGUMENTS, _RESULTS = "best.pt", "args.yaml", "results.csv"
_WEIGHTS = "weights"
_LINE = re.compile(r"^(\w+):[ \t]+(.*?)\s*$", re.MULTILINE)
# Half for each of the two texts, less their names.
_TEXT_BYTES = MAX_METADATA_BYTES // 2 - 64


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The file to register, the texts beside it by name, and the arguments in args.yaml."""

    file: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> ChosenName | None:
        """The name that people expect; None: nothing tells this model from others."""
        above = self.file.absolute().parents
        # The home's own name is a person's.
        own = [*above[: above.index(Path.home())]] if Path.home() in above else [*above]
        folders = [folder.name for folder in own]
        return model_name.chosen(self.file, folders, self.arguments)


def find(path: str | Path) -> TrainingRun:
    """Of a file, itself; of a training's folder, or of its folder weights, the best.pt in it.

    Raises ArtifactNotFound for a folder without one. What is not there, the upload says.
    """
    path = Path(path)
    file = _best(path) if path.is_dir() else path
    run = file.parent.parent if file.parent.name == _WEIGHTS else file.parent
    arguments, results = _text(run / _ARGUMENTS), _text(run / _RESULTS)
    texts = {
        _ARGUMENTS: arguments.encode()[:_TEXT_BYTES].decode(errors="ignore"),
        _RESULTS: thinned(results, _TEXT_BYTES),
    }
    # A file beside a model that is no training's says nothing about it.
    if not _is_of_training(arguments):
        return TrainingRun(file)
    held = {name: text for name, text in texts.items() if text}
    return TrainingRun(file, held, arguments_in(arguments))


def _best(folder: Path) -> Path:
    for file in (folder / _WEIGHTS / _BEST, folder / _BEST):
        if file.is_file():
            return file
    raise ArtifactNotFound(
        f"{folder} has no {_WEIGHTS}/{_BEST}: give a training's folder, or the model file itself"
    )


def _text(path: Path) -> str:
    """Empty if there is none, or it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _is_of_training(text: str) -> bool:
    return {"task", "mode", "data", "epochs"} <= arguments_in(text).keys()


def arguments_in(text: str) -> dict[str, str]:
    """The single values of a YAML file that is a flat mapping, as a training writes it."""
    return {name: value.strip("'\"") for name, value in _LINE.findall(text)}


def thinned(text: str, limit_bytes: int) -> str:
    """A CSV text with fewer rows, evenly chosen, so that it fits; the first and the last stay."""
    lines = text.splitlines()
    rows, every = lines[1:], 1
    while len(text.encode()) > limit_bytes and every < len(rows):
        every += 1
        kept = [*rows[:-1:every], rows[-1]]
        text = "\n".join([lines[0], *kept]) + "\n"
    return text if len(text.encode()) <= limit_bytes else ""


def last_row(text: str) -> dict[str, str]:
    """The values of the last epoch in results.csv, by column."""
    rows = list(csv.DictReader(io.StringIO(text)))
    return {name.strip(): (value or "").strip() for name, value in rows[-1].items()} if rows else {}
