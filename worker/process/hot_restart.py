"""The file by which a worker asks for a successor and hands over its models.

The supervisor chooses the path. The old process writes the note. The new one loads the models in it
before it joins the control planes, then removes it, which tells the supervisor to end the old one.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import structlog
from google.protobuf import json_format

from yolopool.v1.types_pb2 import FencingToken
from yolopool.v1.worker_pb2 import AssignRequest

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RestartNote:
    """What a successor needs. `beside`: both processes fit on the device, so that the old one goes
    on serving meanwhile; otherwise it ends first. `orders` are the models to load, and `token` is
    the highest fencing token obeyed.
    """

    why: str
    beside: bool
    token: FencingToken
    orders: tuple[AssignRequest, ...]


def write(path: Path, note: RestartNote) -> None:
    """Writes the note atomically."""
    text = json.dumps(
        {
            "why": note.why,
            "beside": note.beside,
            "token": json_format.MessageToDict(note.token),
            "orders": [json_format.MessageToDict(order) for order in note.orders],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_text(text)
    scratch.replace(path)


def read(path: Path | None) -> RestartNote | None:
    """The note of another process; None if there is none, or it can't be read."""
    if path is None or not path.exists():
        return None
    try:
        fields = json.loads(path.read_text())
        return RestartNote(
            str(fields["why"]),
            bool(fields["beside"]),
            json_format.ParseDict(fields["token"], FencingToken()),
            tuple(json_format.ParseDict(order, AssignRequest()) for order in fields["orders"]),
        )
    except (OSError, ValueError, KeyError, TypeError, json_format.ParseError) as error:
        log.warning("the handover can't be read", path=str(path), why=str(error))
        return None


def exists(path: Path) -> bool:
    """Whether a note still waits for a successor."""
    return path.exists()


def done(path: Path | None) -> None:
    """Removes the note, once its models are loaded."""
    if path is not None:
        path.unlink(missing_ok=True)


def clear(path: Path) -> None:
    """Removes a note that an earlier run, or a successor that failed, left behind."""
    for name in (path, path.with_name(f"{path.name}.new")):
        if name.exists():
            os.unlink(name)  # noqa: PTH108 - one call for a file and for a broken link
