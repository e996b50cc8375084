"""What is read of a gate: a zip of labelled images, and labels of YOLO and of COCO."""

import io
import json
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from control_plane.types.version import Pack
from control_plane.validation.labelled_zip import open_zip, read_labelled
from tests.fuzz.target import Pure, Target
from yolopool.errors import InvalidOption
from yolopool.evaluation.labelled_images import labelled

_NAMES = ("bolt", "nut")
_PACK = Pack("d", "yolo", "detect", _NAMES, 1, 1, 1)
_LABEL = "0 .5 .5 .2 .2\n1 .1 .1 .1 .1 .2 .3\n"
_COCO = {
    "images": [{"id": 7, "file_name": "x/a.jpg", "width": 100, "height": 200}],
    "categories": [{"id": 3, "name": "nut"}],
    "annotations": [{"image_id": 7, "category_id": 3, "bbox": [40, 60, 20, 80], "iscrowd": 0}],
}
_TASKS = ("detect", "segment", "pose", "obb")
# The first byte of a text says what it is.
_KINDS = ("a.txt", "data.yaml", "a.json")


class Zips:
    """A zip as a control plane reads it, from a file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "gate.zip"

    def run(self, data: bytes) -> str:
        self._path.write_bytes(data)
        try:
            with open_zip(self._path) as archive:
                return f"{min(9, len(read_labelled(archive, _PACK)))} images"
        except InvalidOption as error:
            return error.reason

    def close(self) -> None:
        """Nothing is open."""


def _read(data: bytes) -> str:
    kind, task = _KINDS[data[0] % 3 if data else 0], _TASKS[data[1] % 4 if len(data) > 1 else 0]
    texts = {"a.txt": _LABEL.encode(), kind: data[2:]}
    files = {name: partial(texts.__getitem__, name) for name in texts}
    images = labelled(("a.jpg", "b.jpg"), files, task, _NAMES)
    for image in images:
        image.truths.boxes((640, 480))
        if task == "obb":
            image.truths.rotated((640, 480))
    return f"{kind} {len(images)} images"


def _zip(members: Mapping[str, str], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text, kind)
    return stream.getvalue()


def _zips() -> list[bytes]:
    both = {"images/a.jpg": "x", "labels/a.txt": _LABEL}
    coco = {"a.jpg": "x", "coco.json": json.dumps(_COCO)}
    return [_zip(both), _zip(coco), _zip(both, zipfile.ZIP_STORED), _zip({})]


def _texts() -> list[bytes]:
    return [
        b"\0\0" + _LABEL.encode(),
        b"\0\3" + b"0 .5 .4 .6 .5 .5 .6 .4 .5\n",
        b"\1\0" + b"nc: 2\nnames:\n  0: nut\n  1: bolt\n",
        b"\2\0" + json.dumps(_COCO).encode(),
    ]


TARGETS = {
    one.name: one
    for one in (
        Target(
            name="gate-zips",
            about="zips of labelled images",
            open=Zips,
            seeds=_zips,
            share=100,
            words=(b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x07", b".jpg", b".txt"),
        ),
        Target(
            name="labels",
            about="labels of YOLO and of COCO, and a data.yaml",
            open=lambda folder: Pure(_read, (InvalidOption,)),
            seeds=_texts,
            share=100,
            words=(b"nan", b"inf", b"1e999", b"names", b"bbox", b"image_id", b"&a", b"*a", b"[[["),
        ),
    )
}
