"""`python -m importer` runs a pool's imports; `python -m importer FILE --out DIR` imports one file
without a pool and prints the report.
"""

import asyncio
import contextlib
import hashlib
import json
import sys
import time
from pathlib import Path

import structlog
from google.protobuf import json_format

from importer import child, store
from importer.refusal import CALIBRATION, INVALID, NOT_FOUND, ImportRefused
from importer.settings import Settings, read_settings
from importer.supervisor import Supervisor
from yolopool.client import uploads
from yolopool.errors import (
    InvalidOption,
    ResourceExhausted,
    SignatureInvalid,
    SignatureRequired,
    StorageFailed,
    YolopoolError,
)
from yolopool.names import parse_class_names
from yolopool.server import logs, process
from yolopool.server.parent_death import die_with_parent
from yolopool.tls.joining import membership
from yolopool.v1.importing_pb2 import ImportedPack, ImportProgress
from yolopool.v1.types_pb2 import (
    HEAD_MODE_END_TO_END,
    HEAD_MODE_ONE_TO_MANY,
    HEAD_MODE_UNSPECIFIED,
    OUTPUT_LAYOUT_END_TO_END,
    OUTPUT_LAYOUT_OBJECTNESS,
    OUTPUT_LAYOUT_PAIR,
    OUTPUT_LAYOUT_PLAIN,
    OUTPUT_LAYOUT_UNSPECIFIED,
    VersionSettings,
)

_HEADS = {
    "": HEAD_MODE_UNSPECIFIED,
    "one-to-many": HEAD_MODE_ONE_TO_MANY,
    "end-to-end": HEAD_MODE_END_TO_END,
}
_LAYOUTS = {
    "": OUTPUT_LAYOUT_UNSPECIFIED,
    "objectness": OUTPUT_LAYOUT_OBJECTNESS,
    "plain": OUTPUT_LAYOUT_PLAIN,
    "end-to-end": OUTPUT_LAYOUT_END_TO_END,
    "pair": OUTPUT_LAYOUT_PAIR,
}


def main() -> int:
    """Returns the exit status: 0, or 1 if FILE was refused."""
    process.keep_from_others()
    settings = read_settings()
    if settings.die_with_parent:
        die_with_parent()
    logs.set_up_logs("importer", settings.log_level, settings.log_json, file=settings.log_file)
    return asyncio.run(_import_file(settings) if settings.file else _serve(settings))


async def _serve(settings: Settings) -> int:
    joining = settings.joining()
    if joining is None:
        return await _import_all(settings)
    try:
        async with membership(joining, settings.control_planes, time.time) as files:
            return await _import_all(settings.with_files(files))
    except (YolopoolError, OSError) as error:
        structlog.get_logger().error("importer can't run", why=str(error))
        return 1


async def _import_all(settings: Settings) -> int:
    work = asyncio.create_task(Supervisor(settings).run())
    signal = asyncio.create_task(process.until_signal())
    await asyncio.wait((work, signal), return_when=asyncio.FIRST_COMPLETED)
    signal.cancel()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    return 0


async def _import_file(settings: Settings) -> int:
    try:
        pack = await _one_pack(settings)
    except (
        ImportRefused, ResourceExhausted, SignatureInvalid, SignatureRequired, StorageFailed
    ) as refusal:  # fmt: skip
        sys.stdout.write(json.dumps({"reason": refusal.reason, "message": refusal.message}) + "\n")
        return 1
    fields = json_format.MessageToDict(pack, preserving_proto_field_name=True)
    folder = str((settings.out / pack.digest).absolute())
    sys.stdout.write(json.dumps({**fields, "pack": folder}, indent=2, ensure_ascii=False) + "\n")
    return 0


async def _one_pack(settings: Settings) -> ImportedPack:
    async def show(progress: ImportProgress) -> None:
        sys.stderr.write(f"{progress.fraction:4.0%} {progress.step}\n")

    with store.scratch(settings.scratch_dir) as folder:
        artifact, digest = _take(settings, folder)
        _check_signature(settings, artifact, digest)
        limits = child.Limits(
            settings.memory_limit_bytes, settings.time_limit_s, settings.require_sandbox
        )
        asked = VersionSettings(
            head_mode=_HEADS[settings.head], output_layout=_LAYOUTS[settings.layout]
        )
        pack = await child.run(
            artifact,
            digest,
            asked,
            folder,
            limits,
            show,
            _weights_of(settings),
            _build_of(settings, folder),
        )
        store.verify_pack(folder, pack.digest)
        store.publish(folder, settings.out.absolute().as_uri(), pack.digest)
        return pack


def _check_signature(settings: Settings, artifact: Path, digest: str) -> None:
    """Raises SignatureRequired and SignatureInvalid, if signers are named."""
    beside = Path(f"{settings.file}.minisig")
    text = beside.read_text(encoding="utf-8") if beside.is_file() else ""
    settings.signers().check(artifact, digest, text)


def _weights_of(settings: Settings) -> child.Architecture:
    try:
        names, renamed = parse_class_names(settings.names)
    except InvalidOption as error:
        raise ImportRefused(INVALID, error.message) from error
    if not settings.arch:
        return child.Architecture("", names, renamed)
    try:
        return child.Architecture(uploads.read_architecture(settings.arch), names, renamed)
    except OSError as error:
        raise ImportRefused(
            INVALID, f"{settings.arch} can't be read ({error}): check the path"
        ) from error


def _build_of(settings: Settings, folder: Path) -> child.Build:
    if settings.calibration is None:
        return child.Build(settings.backend, settings.precision)
    path = folder / "calibration.zip"
    try:
        uploads.write_calibration_archive(settings.calibration, path)
    except InvalidOption as error:
        raise ImportRefused(CALIBRATION, error.message) from error
    return child.Build(settings.backend, settings.precision, str(path), _sha256(path))


def _take(settings: Settings, folder: Path) -> tuple[Path, str]:
    source = Path(settings.file)
    if not source.is_file():
        raise ImportRefused(
            NOT_FOUND, f"{source} is not a file: give the path of a .pt or .onnx file"
        )
    uri = source.absolute().as_uri()
    artifact = store.fetch_artifact(uri, folder, settings.max_artifact_bytes)
    return artifact, _sha256(source)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
