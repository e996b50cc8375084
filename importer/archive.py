"""Checks the format of an uploaded file before any library opens it: a zip archive written by
torch, or an ONNX model.
"""

import zipfile
from pathlib import Path

from importer.refusal import INVALID, UNSUPPORTED, ImportRefused

_ZIP, _ONNX = b"PK\x03\x04", b"\x08"
# The limit of a protobuf message.
_MAX_ONNX_BYTES = 2 * 1024**3


def is_onnx(path: Path) -> bool:
    """Whether the file begins as ONNX files do, with the small number of their format version.

    Raises ImportRefused if it is neither that nor a torch archive.
    """
    with path.open("rb") as file:
        begin = file.read(4)
    if not begin:
        raise ImportRefused(INVALID, "the file is empty: upload the model again")
    if begin != _ZIP and not begin.startswith(_ONNX):
        raise ImportRefused(
            INVALID,
            "the file is neither a PyTorch checkpoint (a zip archive) nor an ONNX model: upload "
            "the .pt file that training wrote, such as weights/best.pt, or an .onnx file; a "
            "checkpoint saved before torch 1.6 must be saved again",
        )
    return begin != _ZIP


def check(path: Path, limit_bytes: int) -> None:
    """Refuses a file that is not a torch checkpoint before torch opens it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ImportRefused(
            INVALID, f"the file is cut short or damaged ({error}): upload it again"
        ) from error
    names = {member.filename.partition("/")[2] for member in members}
    if "data.pkl" not in names:
        raise ImportRefused(
            INVALID, "the archive holds no PyTorch checkpoint: upload the .pt file of a training"
        )
    if "constants.pkl" in names:
        raise ImportRefused(
            UNSUPPORTED, "this is a TorchScript export: upload the .pt file it was made from"
        )
    # torch writes without compression; a compressed archive could unpack to far more than was sent.
    if sum(member.file_size for member in members) > min(limit_bytes, 2 * path.stat().st_size):
        raise ImportRefused(INVALID, "the archive unpacks to more than it should: save it again")


def check_onnx(path: Path) -> None:
    """Refuses an ONNX file that is too large to parse."""
    if path.stat().st_size >= _MAX_ONNX_BYTES:
        raise ImportRefused(INVALID, "an ONNX file of 2 GiB or more is not served: export less")
