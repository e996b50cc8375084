"""Writes a pack into a folder: weights.bin, skeleton.json, manifest.json (pack.proto)."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import ultralytics
from google.protobuf import json_format

import yolopool
from importer.skeleton_writer import Skeleton
from yolopool.v1 import types_pb2
from yolopool.v1.pack_pb2 import PackManifest

FORMAT = 1
DEFAULT_CONFIDENCE, DEFAULT_IOU, DEFAULT_MAX_DETECTIONS = 0.25, 0.7, 300


def resolve(
    settings: types_pb2.VersionSettings, trained_size: int, stride: int
) -> types_pb2.VersionSettings:
    """Fills what is not set with the defaults of the library's `predict`."""
    resolved = types_pb2.VersionSettings()
    resolved.CopyFrom(settings)
    size = settings.image_size or trained_size
    # The library rounds up too; at the upper end whole strides must still fit.
    resolved.image_size = min(-(-size // stride) * stride, 4096 // stride * stride)
    if not settings.HasField("confidence"):
        resolved.confidence = DEFAULT_CONFIDENCE
    if not settings.HasField("iou"):
        resolved.iou = DEFAULT_IOU
    if not settings.HasField("max_detections"):
        resolved.max_detections = DEFAULT_MAX_DETECTIONS
    if settings.shape_policy == types_pb2.SHAPE_POLICY_UNSPECIFIED:
        resolved.shape_policy = types_pb2.SHAPE_POLICY_RECT
    return resolved


def write_weights(folder: Path, skeleton: Skeleton) -> str:
    """Writes weights.bin, each tensor at its offset with its strides; returns its SHA-256."""
    digest, written = hashlib.sha256(), 0
    with (folder / "weights.bin").open("wb") as file:
        for entry, tensor in zip(skeleton.entries, skeleton.tensors, strict=True):
            for part in (bytes(entry.offset - written), _raw_bytes(tensor)):
                file.write(part)
                digest.update(part)
            written = entry.offset + tensor.numel() * tensor.element_size()
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: PackManifest, skeleton: Skeleton) -> str:
    """Completes the manifest, writes it with skeleton.json; returns the digest of the pack."""
    manifest.format = FORMAT
    manifest.release = yolopool.__version__
    manifest.architecture_key = hashlib.sha256(skeleton.text).hexdigest()
    manifest.skeleton_bytes = len(skeleton.text)
    manifest.weights_bytes = skeleton.weights_bytes
    manifest.tensors.extend(skeleton.entries)
    manifest.parameters = sum(
        tensor.numel()
        for entry, tensor in zip(skeleton.entries, skeleton.tensors, strict=True)
        if not entry.is_buffer
    )
    manifest.made_with.extend(made_with())
    fields: Any = json_format.MessageToDict(manifest, preserving_proto_field_name=True)
    text = json.dumps(fields, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    _write(folder / "skeleton.json", skeleton.text)
    _write(folder / "manifest.json", text)
    return hashlib.sha256(text).hexdigest()


def files(folder: Path) -> Sequence[Path]:
    """All files of a pack."""
    return [folder / name for name in ("weights.bin", "skeleton.json", "manifest.json")]


def made_with() -> Sequence[str]:
    """The libraries whose classes a pack names."""
    return [f"ultralytics {ultralytics.__version__}", f"torch {torch.__version__}"]


def _raw_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a dense tensor in the order in which it lies in memory."""
    flat = tensor.as_strided((tensor.numel(),), (1,))
    return flat.view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
