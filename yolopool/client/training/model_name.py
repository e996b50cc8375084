"""The name that people expect of a model file: its own, its training's, or its data's. Pure.

Trainings call every file best.pt and every folder train3; such names tell no model from another.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

_FILES = re.compile(r"(best|last|weights?|model|checkpoint|ckpt|epoch|final|download(ed)?|yolo)?")
_FOLDERS = re.compile(
    r"(train(ing)?|val|exp|run|runs|detect|segment|pose|obb|classify|weights?|models?|results?|"
    r"outputs?|data|datasets?|tmp\w*|temp|home|content|working|workspace|app|src|project|"
    r"downloads?|desktop|documents?|users?|mnt|media|opt|var|srv|root)?"
)
# What a copy, a number or a date adds to a name.
_SUFFIX = re.compile(r"([\s._-]*(\(?v?\d[\d._-]*\)?|copy))*$", re.IGNORECASE)
_MAX_CHARS = 63


@dataclass(frozen=True, slots=True)
class ChosenName:
    """A valid name of a model, and what it was taken from."""

    name: str
    because: str


def chosen(
    path: PurePath, folders: Sequence[str], arguments: Mapping[str, str]
) -> ChosenName | None:
    """The first of these that tells a model from others: the file's name, the training's `name`,
    the data that it was trained on, the folders that the file lies in, the nearest first. None: no
    one does. `arguments` are those of the training.
    """
    data = PurePath(arguments.get("data", "").replace("\\", "/"))
    ways = [
        (path.stem, _FILES, "the file's name"),
        (arguments.get("name", ""), _FOLDERS, "name in args.yaml"),
        (data.stem, _FOLDERS, "data in args.yaml"),
        (data.parent.name, _FOLDERS, "data in args.yaml"),
        *((folder, _FOLDERS, f"the folder {folder}") for folder in folders),
    ]
    for text, generic, because in ways:
        bare = _SUFFIX.sub("", text).lower()
        name = valid(text)
        if name and not generic.fullmatch(bare):
            return ChosenName(name, because)
    return None


def valid(text: str) -> str:
    """The text as a model's name; empty if nothing of it can be."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower())
    return re.sub(r"^[._-]+|[._-]+$", "", re.sub(r"^[._-]+", "", name)[:_MAX_CHARS])
