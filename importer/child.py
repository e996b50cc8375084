"""Runs one import in a child process: starts it, watches it, ends it, and never trusts it.

The supervisor's side of importer.job. It enforces the limits of time and memory, because the
child's own limits are only as strong as the host allows.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog
from google.protobuf import json_format

from importer.processes import fresh_child
from importer.processes.running import LINE_BYTES, Running, Start
from importer.refusal import CRASHED, OUT_OF_MEMORY, TIMEOUT, ImportRefused
from yolopool.v1.importing_pb2 import ImportedPack, ImportProgress
from yolopool.v1.types_pb2 import VersionSettings

log = structlog.get_logger()

Said = TypeVar("Said", ImportProgress, ImportedPack)


class ParentLost(Exception):
    """The child ended because its parent did. What it left in its folder is not to be trusted: the
    next attempt needs another folder.
    """


OnProgress = Callable[[ImportProgress], Awaitable[None]]
_WATCH_S, _LAST_WORDS_S = 0.1, 5.0
# Memory of torch and the model library before any model is loaded.
_LIBRARIES_BYTES = 1024**3
# An int8 build may take this many times longer: it runs the model some hundred times.
CALIBRATION_TIMES = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one import; `require_sandbox` refuses to run without every sandbox layer."""

    memory_bytes: int
    time_s: float
    require_sandbox: bool = False


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a file does not say itself: the architecture and class names of a file of weights alone,
    or the class names of an ONNX file; and `renamed`, other names for some of the file's own
    classes, by class id. Empty for a whole checkpoint.
    """

    architecture_yaml: str = ""
    class_names: tuple[str, ...] = ()
    renamed: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Build:
    """The backend (torch, onnx, openvino, tensorrt) and precision of the pack.

    Empty: torch for a checkpoint, ONNX Runtime in fp32 for an ONNX file. int8 needs `calibration`,
    the path of a zip made by `write_calibration_archive`, and its SHA-256.
    """

    backend: str = ""
    precision: str = ""
    calibration: str = ""
    calibration_sha256: str = ""


async def run(
    artifact: Path,
    sha256: str,
    settings: VersionSettings,
    folder: Path,
    limits: Limits,
    on_progress: OnProgress,
    weights_of: Architecture | None = None,
    build: Build | None = None,
    start: Start = fresh_child.start,
) -> ImportedPack:
    """Imports a local file into `folder`; `weights_of` describes a file of weights alone. `start`
    says where the child comes from.

    Raises ImportRefused, ParentLost. The child process has ended in any case.
    """
    if build is not None and build.calibration:
        limits = replace(limits, time_s=CALIBRATION_TIMES * limits.time_s)
    order = _order(artifact, sha256, settings, folder, limits)
    order |= asdict(weights_of or Architecture()) | {"build": asdict(build or Build())}
    child = await start(json.dumps(order).encode(), folder)
    watch = asyncio.create_task(_watch_memory(child, limits.memory_bytes + _LIBRARIES_BYTES))
    tail = asyncio.create_task(_tail(child.errors))
    try:
        async with asyncio.timeout(limits.time_s):
            ending = await _listen(child.lines, on_progress)
            status = await child.wait()
    except TimeoutError:
        raise ImportRefused(
            TIMEOUT,
            f"the import took longer than {limits.time_s:g} s: raise the importer's --time-limit-s "
            "if the model is very large or the host slow, or calibrate on fewer images",
        ) from None
    finally:
        watch.cancel()
        child.kill()
        await child.wait()
        # It may be that something else still has its pipes.
        await asyncio.wait({tail}, timeout=_LAST_WORDS_S)
        child.close()
        errors = await tail
    return _result(ending, status, watch, errors, limits)


def _order(
    artifact: Path, sha256: str, settings: VersionSettings, folder: Path, limits: Limits
) -> dict[str, Any]:
    return {
        "artifact": str(artifact),
        "sha256": sha256,
        "settings": json_format.MessageToDict(settings, preserving_proto_field_name=True),
        "folder": str(folder),
        "memory_bytes": limits.memory_bytes,
        # fp16 becomes fp32, so a pack is a little more than twice its file.
        "file_bytes": 4 * artifact.stat().st_size + 64 * 1024**2,
        "processor_s": int(limits.time_s) + 1,
        "require_sandbox": limits.require_sandbox,
    }


def _result(
    ending: dict[str, Any],
    status: int | None,
    watch: "asyncio.Task[bool]",
    errors: str,
    limits: Limits,
) -> ImportedPack:
    failed = ending.get("failed")
    if isinstance(failed, dict) and {"reason", "message"} <= failed.keys():
        raise ImportRefused(str(failed["reason"])[:64], str(failed["message"])[:1_000])
    pack = _message(ending.get("done"), ImportedPack())
    if pack is not None and status == 0:
        return pack
    if status is None:
        raise ParentLost
    if _ran_out_of_memory(status, watch, errors):
        raise ImportRefused(
            OUT_OF_MEMORY,
            f"the import needed more than {limits.memory_bytes >> 20} MiB: raise the importer's "
            "--memory-limit-bytes if the model is really so large",
        )
    if status == -signal.SIGXCPU:
        raise ImportRefused(
            TIMEOUT, f"the import used more than {limits.time_s:g} s of processor time"
        )
    log.warning("import crashed", status=status, errors=errors[-2_000:])
    raise ImportRefused(
        CRASHED,
        f"the import ended with status {status} and no answer: the importer's log has what it "
        "said; upload the file again if it may be damaged",
    )


def _ran_out_of_memory(status: int | None, watch: "asyncio.Task[bool]", errors: str) -> bool:
    if watch.done() and not watch.cancelled() and watch.result():
        return True
    # Only the kernel sends SIGKILL here; and C++ aborts where Python would raise MemoryError.
    return status == -signal.SIGKILL or "bad_alloc" in errors or "MemoryError" in errors


async def _listen(lines: asyncio.StreamReader, on_progress: OnProgress) -> dict[str, Any]:
    """Reads all lines; returns the last, which says how the import ended."""
    ending: dict[str, Any] = {}
    async for raw in _whole(lines):
        line = _parsed(raw)
        if "progress" not in line:
            ending = line or ending
        elif (news := _message(line["progress"], ImportProgress())) is not None:
            await on_progress(news)
    return ending


async def _whole(lines: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Raises ImportRefused for a line that is longer than any that the job writes."""
    try:
        async for raw in lines:
            yield raw
    except ValueError as error:
        raise ImportRefused(
            CRASHED, f"the import said a line of more than {LINE_BYTES >> 20} MiB: retry"
        ) from error


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}


def _message(fields: Any, into: Said) -> Said | None:
    """What the child says, or None: nothing, or of another form, as of one that was taken over."""
    if fields is None:
        return None
    try:
        return json_format.ParseDict(fields, into)
    except Exception:  # the library's errors of objects of any kind are of any kind
        return None


async def _watch_memory(child: Running, limit_bytes: int) -> bool:
    """Kills the child if its resident memory exceeds the limit; returns whether it did."""
    while not child.has_ended:
        if _resident_bytes(child.pid) > limit_bytes:
            child.kill()
            return True
        await asyncio.sleep(_WATCH_S)
    return False


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0  # it has ended, or there is no /proc and the child's own limit must do
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _tail(errors: asyncio.StreamReader) -> str:
    """The end of its stderr, which is read continuously so that the pipe never fills."""
    kept = b""
    while chunk := await errors.read(65_536):
        kept = (kept + chunk)[-8_192:]
    return kept.decode(errors="replace")
