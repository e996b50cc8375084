"""The form of an uploaded file, looked at before torch is: a zip archive as torch writes it."""

import zipfile
from pathlib import Path

from importer.refusal import INVALID, UNSUPPORTED, ImportRefused


def check(path: Path, limit_bytes: int) -> None:
    """Refuses what is no checkpoint before torch looks at it."""
    if path.stat().st_size == 0:
        raise ImportRefused(INVALID, "the file is empty: upload the checkpoint again")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"PK\x03\x04":
        raise ImportRefused(
            INVALID,
            "the file is no PyTorch checkpoint (a zip archive): upload the .pt file that training "
            "wrote, such as weights/best.pt; one saved before torch 1.6 must be saved again",
        )
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
    # torch stores without compression; anything else could unpack to far more than was sent.
    if sum(member.file_size for member in members) > min(limit_bytes, 2 * path.stat().st_size):
        raise ImportRefused(INVALID, "the archive unpacks to more than it should: save it again")
