"""`python -m importer`: serves a pool's imports; `python -m importer FILE --out DIR`: imports one
file without any pool and prints the report.
"""

import asyncio
import contextlib
import hashlib
import json
import sys
import tempfile
from pathlib import Path

from google.protobuf import json_format

from importer import child, store
from importer.refusal import NOT_FOUND, ImportRefused
from importer.settings import Settings, read_settings
from importer.supervisor import Supervisor
from yolopool import serving
from yolopool.v1.importing_pb2 import ImportedPack, ImportProgress
from yolopool.v1.types_pb2 import VersionSettings


def main() -> int:
    """Exit status: 0, or 1 when FILE was refused."""
    settings = read_settings()
    if settings.die_with_parent:
        serving.die_with_parent()
    serving.set_up_logs("importer", settings.log_level, settings.log_json)
    return asyncio.run(_import_file(settings) if settings.file else _serve(settings))


async def _serve(settings: Settings) -> int:
    work = asyncio.create_task(Supervisor(settings).run())
    signal = asyncio.create_task(serving.until_signal())
    await asyncio.wait((work, signal), return_when=asyncio.FIRST_COMPLETED)
    signal.cancel()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    return 0


async def _import_file(settings: Settings) -> int:
    try:
        pack = await _one_pack(settings)
    except ImportRefused as refusal:
        sys.stdout.write(json.dumps({"reason": refusal.reason, "message": refusal.message}) + "\n")
        return 1
    fields = json_format.MessageToDict(pack, preserving_proto_field_name=True)
    folder = str((settings.out / pack.digest).absolute())
    sys.stdout.write(json.dumps({**fields, "pack": folder}, indent=2, ensure_ascii=False) + "\n")
    return 0


async def _one_pack(settings: Settings) -> ImportedPack:
    async def show(progress: ImportProgress) -> None:
        sys.stderr.write(f"{progress.fraction:4.0%} {progress.step}\n")

    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="import-", dir=settings.scratch_dir) as name:
        folder = Path(name)
        artifact, digest = _take(settings, folder)
        limits = child.Limits(settings.memory_limit_bytes, settings.time_limit_s)
        pack = await child.run(artifact, digest, VersionSettings(), folder, limits, show)
        store.verify_pack(folder, pack.digest)
        store.publish(folder, settings.out.absolute().as_uri(), pack.digest)
        return pack


def _take(settings: Settings, folder: Path) -> tuple[Path, str]:
    source = Path(settings.file)
    if not source.is_file():
        raise ImportRefused(NOT_FOUND, f"{source} is no file: give the path of a .pt checkpoint")
    uri = source.absolute().as_uri()
    artifact = store.fetch_artifact(uri, folder, settings.max_artifact_bytes)
    with source.open("rb") as file:
        return artifact, hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
