"""Opens a .pt file with torch's restricted reader, which rebuilds the model library's own classes
and runs no code of the file.
"""

import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import torch
from ultralytics.nn import tasks
from ultralytics.utils import SAFE_LOAD

from importer.refusal import CRASHED, INVALID, UNSAFE, ImportRefused
from importer.torch_import import foreign_code, stand_ins, transforms


def load(path: Path) -> Any:
    """What the file holds, with records for what no model needs. Raises ImportRefused."""
    if not (SAFE_LOAD and tasks._SafeLoad.SUPPORTED):
        raise ImportRefused(CRASHED, "safe loading is off: install torch 2.6 or newer")
    transforms.permit()
    named = _named(path)
    stand_ins.permit(named)
    try:
        with tasks._SafeLoad.loading(path):
            if foreign := _named(path):
                raise foreign_code.refusal(foreign)
            return torch.load(path, map_location="cpu", weights_only=True)
    except (ImportRefused, MemoryError):
        raise
    except ModuleNotFoundError as error:
        missing = [name for name in named if name.startswith(f"{error.name}.")]
        raise foreign_code.refusal(missing or [str(error.name)]) from error
    except pickle.UnpicklingError as error:
        if foreign := _refused(str(error)):
            raise foreign_code.refusal(foreign) from error
        raise _unreadable(error) from error
    except Exception as error:
        if "allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise _unreadable(error) from error


def _named(path: Path) -> list[str]:
    """The functions and classes that the file names beyond those that may be rebuilt."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except pickle.UnpicklingError as error:
        raise ImportRefused(
            UNSAFE,
            f"the file's pickle can't be read safely ({_first_line(error)}): save it again with "
            "torch.save and without a pickle_protocol of your own",
        ) from error
    except (ValueError, RuntimeError, EOFError, IndexError, OSError, struct.error) as error:
        raise _unreadable(error) from error


def _refused(text: str) -> list[str]:
    """What the reader refused to call, from its message."""
    found = re.findall(r"(?:GLOBAL|type|class|function)\s+([A-Za-z_][\w.]*\.[\w]+)", text)
    if not found and re.search(r"[Uu]nsupported (?:global|class|operand)|unsafe getattr", text):
        found = [_first_line(text)]
    return list(dict.fromkeys(found))


def _unreadable(error: Exception) -> ImportRefused:
    return ImportRefused(
        INVALID,
        f"the file can't be read ({_first_line(error)}): it is damaged or was changed by hand; "
        "upload the file of a training",
    )


def _first_line(error: object) -> str:
    # Before it, torch says how to open the file unsafely: advice that must not be passed on.
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200].replace(os.getcwd(), "")  # noqa: PTH109
