"""Finds the labels of images: .txt files of YOLO with a data.yaml or without, or a COCO json.

The files are named by their paths with slashes, and may be of a folder or of an archive. They may
be a stranger's: what is read of each is bounded.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import yaml

from yolopool.errors import InvalidOption
from yolopool.evaluation.average_precision import Array
from yolopool.evaluation.truths import NOTHING, OBB, Truths, read_lines, truths_of, upright
from yolopool.vocabulary import IMAGE_SUFFIXES

MAX_TEXT_BYTES, MAX_YAML_BYTES, MAX_JSON_BYTES = 4 << 20, 256 << 10, 256 << 20
# Of one image, and of all: each is looked at beside each detection of its image.
MAX_OBJECTS, MAX_ALL_OBJECTS = 5000, 500_000

Read = Callable[[], bytes]


class LabelledImage(NamedTuple):
    name: str
    truths: Truths


def is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def labelled(
    images: Sequence[str], files: Mapping[str, Read], task: str, class_names: Sequence[str]
) -> tuple[LabelledImage, ...]:
    """The images with what is on each. `class_names` and `task`: the model's.

    With a COCO json among the files, the images that it names; else all, and one without a .txt has
    nothing on it. Where the files name classes they are matched by their names with the model's;
    else their ids are the model's. Raises InvalidOption, also if no image has a label.
    """
    tables = [name for name in sorted(files) if name.endswith(".json")]
    if tables:
        found = _bounded(_of_coco(images, files, tables, task, class_names))
    else:
        found = _bounded(_of_texts(images, files, task, class_names))
    if not any(len(image.truths) for image in found):
        raise InvalidOption(
            "there are no labels of these images: give a .txt for each image, or a COCO json that "
            "names them"
        )
    return found


def _bounded(images: Iterator[LabelledImage]) -> tuple[LabelledImage, ...]:
    found, objects = [], 0
    for image in images:
        objects += len(image.truths)
        if len(image.truths) > MAX_OBJECTS or objects > MAX_ALL_OBJECTS:
            raise InvalidOption(
                f"{image.name[:200]} has {len(image.truths)} labels, and the images up to it "
                f"{objects}: give at most {MAX_OBJECTS} an image and {MAX_ALL_OBJECTS} in all"
            )
        found.append(image)
    return tuple(found)


# --- YOLO -------------------------------------------------------------------------------------


def _of_texts(
    images: Sequence[str], files: Mapping[str, Read], task: str, class_names: Sequence[str]
) -> Iterator[LabelledImage]:
    ids: Mapping[int, int] | int = len(class_names)
    named = _names_in_yaml(files)
    if named:
        known = {name: number for number, name in enumerate(class_names)}
        ids = {number: known[name] for number, name in named.items() if name in known}
    texts = {name: read for name, read in files.items() if name.endswith(".txt")}
    # A folder of labels may have the images' own folders, or none of them.
    by_stem = {PurePosixPath(name).stem: name for name in sorted(texts)}
    alone = len(by_stem) == len(texts)
    for image in images:
        candidates = [*_label_names(image), *([by_stem.get(_stem(image), "")] if alone else [])]
        place = next((name for name in candidates if name in texts), "")
        if not place:
            yield LabelledImage(image, NOTHING)
            continue
        text = _decoded(texts[place], place, MAX_TEXT_BYTES)
        yield LabelledImage(image, read_lines(text, place, task, ids))


def _label_names(image: str) -> tuple[str, ...]:
    """Beside the image, and where the model library looks: images/... and labels/..."""
    own = str(PurePosixPath(image).with_suffix(".txt"))
    head, folder, tail = f"/{own}".rpartition("/images/")
    moved = f"{head}/labels/{tail}".removeprefix("/") if folder else f"labels/{own}"
    return own, moved


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _names_in_yaml(files: Mapping[str, Read]) -> dict[int, str]:
    """The class names of a data.yaml; empty: there is none, or it names none."""
    for name in sorted(files):
        if not name.endswith((".yaml", ".yml")):
            continue
        text = _decoded(files[name], name, MAX_YAML_BYTES)
        try:
            content = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InvalidOption(f"{name} is no YAML: {str(error)[:200]}") from None
        names = content.get("names") if isinstance(content, dict) else None
        pairs = dict(enumerate(names)) if isinstance(names, list) else names
        if pairs is None:
            continue
        if not isinstance(pairs, dict) or not all(
            isinstance(number, int) and isinstance(word, str | int | float)
            for number, word in pairs.items()
        ):
            raise InvalidOption(f"{name}: names must be a list, or names by their class id")
        return {number: str(word) for number, word in pairs.items()}
    return {}


# --- COCO -------------------------------------------------------------------------------------


def _of_coco(
    images: Sequence[str],
    files: Mapping[str, Read],
    tables: Sequence[str],
    task: str,
    class_names: Sequence[str],
) -> Iterator[LabelledImage]:
    if len(tables) > 1:
        raise InvalidOption(f"there are {len(tables)} json files: give the one with the labels")
    if task == OBB:
        raise InvalidOption("a COCO json has no rotated boxes: give a .txt for each image")
    place = tables[0]
    try:
        content = json.loads(_decoded(files[place], place, MAX_JSON_BYTES))
        rows = _rows(content, class_names)
    except (
        ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise InvalidOption(
            f"{place} is no COCO json ({type(error).__name__}: {str(error)[:100]}): it needs "
            "images with file_name, width and height, annotations with image_id, category_id and "
            "bbox, and categories with names"
        ) from None
    for image in images:
        # file_name may have a folder that the images here are not in, or the other way round.
        place = next((name for name in (image, PurePosixPath(image).name) if name in rows), "")
        if place:
            yield LabelledImage(image, truths_of(rows[place]))


def _rows(content: Any, class_names: Sequence[str]) -> dict[str, list[tuple[int, Array]]]:
    """The objects by the name of the image, and by its last part."""
    known = {name: number for number, name in enumerate(class_names)}
    ids = {int(one["id"]): str(one["name"]) for one in content["categories"]}
    sizes = {
        one["id"]: (str(one["file_name"]), float(one["width"]), float(one["height"]))
        for one in content["images"]
    }
    if not all(width > 0 and height > 0 for _, width, height in sizes.values()):
        raise ValueError("an image has no width or height")
    rows: dict[str, list[tuple[int, Array]]] = {name: [] for name, _, _ in sizes.values()}
    for one in content["annotations"]:
        if one.get("iscrowd"):
            continue
        name, width, height = sizes[one["image_id"]]
        word = ids[int(one["category_id"])]
        if word not in known:
            raise InvalidOption(
                f"the labels have class {word!r}, which the model does not have: it has "
                f"{', '.join(class_names[:10])}"
            )
        left, top, wide, high = (float(value) for value in one["bbox"])
        outline = upright(left + wide / 2, top + high / 2, wide, high) / (width, height)
        if wide > 0 and high > 0 and bool(np.isfinite(outline).all()):
            rows[name].append((known[word], outline))
    return {**{PurePosixPath(name).name: row for name, row in rows.items()}, **rows}


def _decoded(read: Read, name: str, most: int) -> str:
    content = read()
    if len(content) > most:
        raise InvalidOption(f"{name} has {len(content)} bytes, and at most {most} are read")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidOption(f"{name} is not text in UTF-8") from None
