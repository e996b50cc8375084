"""The note by which a worker asks for its successor, and hands over what it holds.

A file of the supervisor's choosing: the old process writes it, the new one loads what it names
before it joins the control planes, and removes it; that is the sign that it may take over.
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
    """`beside`: there is room for the successor beside the old process, which serves on until
    then; else it ends first. `orders` are to be loaded, `token` was the highest obeyed.
    """

    why: str
    beside: bool
    token: FencingToken
    orders: tuple[AssignRequest, ...]


def write(path: Path, note: RestartNote) -> None:
    """Whole or not at all."""
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
    """What another process left for this one; None if there is nothing that can be read."""
    if path is None or not path.exists():
        return None
    try:
        fields = json.loads(path.read_text())
        return RestartNote(
            str(fields["why"]),
            bool(fields["beside"]),
            json_format.ParseDict(fields["token"], FencingToken()),
            tuple(json_format.ParseDict(one, AssignRequest()) for one in fields["orders"]),
        )
    except (OSError, ValueError, KeyError, TypeError, json_format.ParseError) as error:
        log.warning("the handover can't be read", path=str(path), why=str(error))
        return None


def there(path: Path) -> bool:
    """Whether a note waits for a successor still."""
    return path.exists()


def done(path: Path | None) -> None:
    """What was handed over is here."""
    if path is not None:
        path.unlink(missing_ok=True)


def clear(path: Path) -> None:
    """Removes what an earlier run left, so that nobody takes it for this one's."""
    for name in (path, path.with_name(f"{path.name}.new")):
        if name.exists():
            os.unlink(name)  # noqa: PTH108 - one call for a file and for a broken link
