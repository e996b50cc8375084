"""Writes a pack into a folder: weights.bin, skeleton.json, manifest.json (pack.proto)."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format

import yolopool
from yolopool.v1 import importing_pb2, types_pb2
from yolopool.v1.pack_pb2 import PackManifest

FORMAT = 1
DEFAULT_CONFIDENCE, DEFAULT_IOU, DEFAULT_MAX_DETECTIONS = 0.25, 0.7, 300


def resolve(
    settings: types_pb2.VersionSettings, trained_size: int, stride: int
) -> types_pb2.VersionSettings:
    """Fills settings that are not set with the defaults of the library's `predict`."""
    resolved = types_pb2.VersionSettings()
    resolved.CopyFrom(settings)
    resolved.image_size = _whole(settings.image_size or trained_size, stride)
    if settings.image_height:
        resolved.image_height = _whole(settings.image_height, stride)
        resolved.image_width = _whole(settings.image_width, stride)
        resolved.image_size = max(resolved.image_height, resolved.image_width)
    if not settings.HasField("confidence"):
        resolved.confidence = DEFAULT_CONFIDENCE
    if not settings.HasField("iou"):
        resolved.iou = DEFAULT_IOU
    if not settings.HasField("max_detections"):
        resolved.max_detections = DEFAULT_MAX_DETECTIONS
    if settings.shape_policy == types_pb2.SHAPE_POLICY_UNSPECIFIED:
        resolved.shape_policy = types_pb2.SHAPE_POLICY_RECT
    return resolved


def sides(settings: types_pb2.VersionSettings) -> tuple[int, int]:
    """The largest (height, width) that images are letterboxed to."""
    size = settings.image_size
    return settings.image_height or size, settings.image_width or size


def _whole(size: int, stride: int) -> int:
    """Rounded up to whole strides as the library does, and down at the upper limit."""
    return min(-(-size // stride) * stride, 4096 // stride * stride)


def write_weights(folder: Path, parts: Iterable[bytes]) -> str:
    """Writes the parts to weights.bin one after the other; returns its SHA-256."""
    digest = hashlib.sha256()
    with (folder / "weights.bin").open("wb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: PackManifest, skeleton: bytes) -> str:
    """Completes the manifest and writes it and skeleton.json; returns the digest of the pack."""
    manifest.format = FORMAT
    manifest.release = yolopool.__version__
    manifest.architecture_key = hashlib.sha256(skeleton).hexdigest()
    manifest.skeleton_bytes = len(skeleton)
    fields: Any = json_format.MessageToDict(manifest, preserving_proto_field_name=True)
    text = json.dumps(fields, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    _write(folder / "skeleton.json", skeleton)
    _write(folder / "manifest.json", text)
    return hashlib.sha256(text).hexdigest()


def report(
    folder: Path,
    manifest: PackManifest,
    digest: str,
    artifact: Path,
    training: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The ImportedPack of a written pack, as JSON."""
    told = importing_pb2.ImportedPack(
        digest=digest,
        architecture=manifest.architecture,
        task=manifest.task,
        class_names=manifest.class_names,
        settings=manifest.settings,
        weights_bytes=manifest.weights_bytes,
        activation_bytes_per_megapixel=manifest.activation_bytes_per_megapixel,
        parameters=manifest.parameters,
        warnings=manifest.warnings,
        gflops=manifest.gflops,
        artifact_bytes=artifact.stat().st_size,
        pack_bytes=sum(file.stat().st_size for file in files(folder)),
        backend=manifest.backend,
        precision=manifest.precision,
        tried=manifest.tried,
        training=training,
    )
    fields: dict[str, Any] = json_format.MessageToDict(told, preserving_proto_field_name=True)
    return fields


def files(folder: Path) -> Sequence[Path]:
    """The size of all files of a pack."""
    return [folder / name for name in ("weights.bin", "skeleton.json", "manifest.json")]


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
