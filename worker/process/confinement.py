"""Takes from a worker process what it does not need of the host's files, before its libraries start
threads: it changes its own folder only, and reads packs, libraries and devices.

A host that can't do so is reported: in the log, and by the label `sandbox` of the worker.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from worker.settings import Settings
from yolopool.server.confinement import host_paths, landlock

log = structlog.get_logger()

# Values of the label.
FILES, WRITES, NONE = "files", "writes", "none"
_SCRATCH = "tmp-"
# A folder that is younger may not be locked yet.
_NEW_S = 60.0
_UVM = Path("/dev/nvidia-uvm")


def confine(settings: Settings) -> str:
    """Confines this process and all it starts. Returns how far, a value of the label.

    Raises OSError where `--sandbox require` can't be met, and for a folder of `--may-read` that is
    not there, since it could not be read later either.
    """
    strict = settings.sandbox == "require"
    lacking = _lacking(settings)
    if not lacking:
        for folder in settings.may_read:
            if not Path(folder).exists():
                raise OSError(
                    f"--may-read {folder}: it is not there (yet): make it, or correct this"
                )
        lacking = landlock.confine(landlock.Rules(_places(settings), not settings.may_read))
    if lacking and strict:
        raise OSError(f"files can't be confined, as --sandbox require asks: {lacking}")
    if lacking:
        log.warning("files are not confined", why=lacking)
        return NONE
    if beside := _keys_beside(settings):
        log.warning("THIS PROCESS CAN READ KEYS OF OTHERS: move its certificate", keys=beside)
    reads = FILES if settings.may_read else WRITES
    log.info("files are confined", sandbox=reads, landlock_abi=landlock.abi())
    return reads


def _lacking(settings: Settings) -> str:
    if settings.sandbox == "off":
        return "--sandbox off"
    if settings.device_kind == "cuda" and settings.sandbox != "require":
        return "a CUDA device is confined by --sandbox require only"
    if settings.device_kind == "cuda" and not _UVM.exists():
        # The driver's program that makes it may not take the rights that it needs any more.
        return f"{_UVM} is missing: run `nvidia-modprobe -u -c 0` when the host starts"
    if settings.sandbox == "require" and not settings.may_read:
        return "--may-read names no folder of packs, so that everything may be read"
    try:
        _own_temporary_folder(settings.data_dir)
    except OSError as error:
        return f"no temporary folder can be made in {settings.data_dir} ({error.strerror})"
    return ""


def _places(settings: Settings) -> host_paths.Places:
    changed = [settings.data_dir, *_parents(settings.handover)]
    if settings.log_file:
        changed += _parents(Path(settings.log_file).expanduser())
    if folder := os.environ.get("YOLO_CONFIG_DIR"):
        changed.append(Path(folder))
    # The folders, since a renewed certificate is another file.
    secrets = (settings.tls_ca, settings.tls_cert, settings.tls_key)
    read = [folder for path in secrets for folder in _parents(path)]
    return (
        *host_paths.of_python(("worker", "yolopool")),
        *host_paths.of_system(),
        *host_paths.of_network(),
        # I/O processes find the package there: the names of what lies beside it, not the contents.
        (Path(__file__).parents[2], landlock.READ_DIR),
        (Path("/proc/self"), landlock.READ | landlock.WRITE_FILE),  # names of threads
        *(host_paths.of_nvidia() if settings.device_kind == "cuda" else ()),
        *((path, landlock.READ) for path in (*read, *map(Path, settings.may_read))),
        *((path, landlock.CHANGE) for path in changed),
    )


def _keys_beside(settings: Settings) -> list[str]:
    """Keys in the folders of its own certificate, which it has to read: an authority's, say."""
    own = {path.resolve() for path in (settings.tls_key, settings.tls_cert) if path is not None}
    folders = {path.absolute().parent for path in (settings.tls_key, settings.tls_cert) if path}
    found = (key for folder in folders for key in folder.glob("*.key"))
    return sorted(str(key) for key in found if key.resolve() not in own)


def _parents(path: Path | None) -> list[Path]:
    return [path.absolute().parent] if path is not None else []


def _own_temporary_folder(data_dir: Path) -> None:
    """One that others do not share, in the process's own folder; removed with it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    for left in _left(data_dir):
        shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=_SCRATCH, dir=data_dir)
    fcntl.flock(
        os.open(folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB
    )  # until the process ends
    atexit.register(shutil.rmtree, folder, True)
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    os.environ.setdefault("CUDA_CACHE_PATH", str(data_dir / "cuda"))


def _left(data_dir: Path) -> Iterator[Path]:
    """Temporary folders of processes that have ended."""
    for folder in data_dir.glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime < _NEW_S:
                continue
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield folder
            finally:
                os.close(handle)
