"""The child process of one import: one file in, one pack folder out, progress as JSON on stdout.

It reads its order from stdin; everything else that it prints goes to stderr. It enters the sandbox
first, then imports torch, and opens the user's file last. As `python -m importer.job` it is a new
interpreter; forked from a prepared parent it has the libraries.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from importer import archive, builds, sandbox
from importer.encoder import Encode
from importer.refusal import (
    CHANGED,
    CRASHED,
    INVALID,
    OUT_OF_MEMORY,
    UNSUPPORTED,
    WEAK_SANDBOX,
    ImportRefused,
)
from yolopool.server import exhaustion, process

Say = Callable[[dict[str, Any]], None]
_CHUNK_BYTES = 4 * 1024**2
# A disk with less room than this is full.
LITTLE_BYTES = 64 * 1024


def main() -> int:
    """Runs the order. The exit status is 0 if the last line says how the import ended."""
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries must not mix with progress

    def say(line: dict[str, Any]) -> None:
        pipe.write(json.dumps(line) + "\n")

    order = json.loads(sys.stdin.read())
    _move_to(Path(order["folder"]))
    inputs = [Path(path) for path in (order["artifact"], order["build"]["calibration"]) if path]
    warnings = sandbox.before_imports(inputs, Path(order["folder"]))
    try:
        say({"done": _run(order, warnings, say)})
    except ImportRefused as refusal:
        say({"failed": {"reason": refusal.reason, "message": refusal.message}})
    except MemoryError:
        say({"failed": {"reason": OUT_OF_MEMORY, "message": out_of_memory(order["memory_bytes"])}})
    return 0


def out_of_memory(limit_bytes: int) -> str:
    """What to do if an import needs more memory than its limit."""
    return (
        f"the import needed more than {limit_bytes >> 20} MiB: raise the importer's "
        "--memory-limit-bytes if the model is really so large"
    )


def import_libraries() -> None:
    """Imports what jobs need, for the children of this process: what starts no thread, as ONNX
    Runtime does, and what more than a few need, as those of int8 are. They import these themselves.
    """
    _for_torch({"backend": "torch", "precision": "fp32"})
    with suppress(ImportError):  # a child that needs it says so
        import onnx  # noqa: F401
        import torch.onnx.utils  # noqa: F401
    with suppress(ImportError, OSError):  # and so does the sandbox
        import pyseccomp  # noqa: F401


def seed_anew() -> None:
    """In a forked child: random numbers of its own. Python's own does so by itself."""
    import numpy as np
    import torch

    np.random.seed()
    torch.default_generator.seed()


def at_home(folder: Path) -> dict[str, str]:
    """What of its environment names the folder of a job."""
    return {"HOME": str(folder), "TMPDIR": str(folder), "YOLO_CONFIG_DIR": str(folder)}


def _move_to(folder: Path) -> None:
    """What libraries write beside the pack, they write to the folder of the job."""
    os.chdir(folder)
    os.environ |= at_home(folder)
    tempfile.tempdir = None  # what a parent has found out


def _run(order: dict[str, Any], warnings: list[str], say: Say) -> dict[str, Any]:
    _step(say, 0.02, "verify")
    artifact, folder, build = Path(order["artifact"]), Path(order["folder"]), order["build"]
    of_onnx = archive.is_onnx(artifact)
    build |= builds.resolved(of_onnx, **build)
    process.begin()
    encode = _for_onnx(build) if of_onnx else _for_torch(build)
    process.settle()
    warnings += sandbox.after_imports(
        order["memory_bytes"], order["file_bytes"], order["processor_s"]
    )
    if warnings and order["require_sandbox"]:
        raise ImportRefused(
            WEAK_SANDBOX,
            f"{'; '.join(warnings)}: run the importer where these are allowed, or without "
            "--require-sandbox",
        )
    # Checked before the whole file is read, because it may be very large.
    if of_onnx:
        archive.check_onnx(artifact)
    else:
        archive.check(artifact, order["file_bytes"])
    _check_digest(artifact, order["sha256"])
    if build["calibration"]:
        _check_digest(Path(build["calibration"]), build["calibration_sha256"])
    try:
        return encode(order, artifact, folder, warnings, lambda f, s: _step(say, f, s))
    except (ImportRefused, MemoryError):
        raise
    except Exception as error:
        if (full := _without_room(error, folder.parent)) is not None:
            raise full from error
        if isinstance(error, OSError):
            raise ImportRefused(
                CRASHED, f"the pack can't be written ({error}): see the importer's log"
            ) from error
        # An exception of the library on an unknown file counts as a fault of the file.
        traceback.print_exc()
        if "allocate memory" in str(error) or "out of memory" in str(error):
            raise MemoryError(str(error)) from error
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ImportRefused(INVALID, f"the model can't be run ({why}): save it again") from error


def _without_room(error: Exception, scratch: Path) -> ImportRefused | None:
    """Libraries have errors of their own for a write that failed: the disk itself is asked."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not full and shutil.disk_usage(scratch).free >= LITTLE_BYTES:
        return None
    said = exhaustion.typed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), scratch)
    assert said is not None, "a full disk has a type"
    return ImportRefused(said.reason, said.message)


def _check_digest(path: Path, wanted: str) -> None:
    found = _sha256(path)
    if found != wanted:
        raise ImportRefused(
            CHANGED,
            f"the stored {path.name} has SHA-256 {found[:12]}…, not {wanted[:12]}…: upload again",
        )


def _for_torch(build: dict[str, str]) -> Encode:
    """The encoder of a checkpoint, into a torch pack or an ONNX graph.

    Imports the libraries before the system call filter: they start programs to inspect the machine.
    """
    import torch
    import torch.utils.flop_counter
    import ultralytics.nn.tasks  # noqa: F401

    torch.set_num_threads(1)
    if build["backend"] != "torch":
        of_graph = _for_onnx(build)
        import torch.onnx.utils  # otherwise imported during the export, behind the filter

        from importer.onnx_import import export

        return partial(export.encode, of_graph)
    from importer.torch_import import encode

    return encode.encode


def _for_onnx(build: dict[str, str]) -> Encode:
    """The encoder of an ONNX file. Raises ImportRefused if its library, or that of int8, is not
    installed.
    """
    try:
        from importer.onnx_import import encode as onnx_encode
    except ImportError as error:
        raise ImportRefused(
            UNSUPPORTED,
            f"this importer cannot read ONNX files ({error}): install yolopool[onnx] for it",
        ) from error
    if build["precision"] != "int8":
        return onnx_encode.encode
    try:
        from importer.onnx_import import quantise
    except ImportError as error:
        raise ImportRefused(
            UNSUPPORTED,
            f"this importer cannot build int8 ({error}): install yolopool[int8] for it",
        ) from error
    return partial(onnx_encode.encode, quantise=quantise.quantised)


def _step(say: Say, fraction: float, step: str) -> None:
    say({"progress": {"fraction": fraction, "step": step}})


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
