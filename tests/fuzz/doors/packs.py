"""Packs as workers read them: a manifest of any text, with the digest that it has."""

import hashlib
import shutil
from pathlib import Path
from random import Random

from google.protobuf import json_format

from tests.fuzz import messages, mutation
from tests.fuzz.target import Target, reason_of
from worker.packs.manifest import ITEM_BYTES, TASKS
from worker.packs.pack_store import MANIFEST, SKELETON, WEIGHTS, PackStore
from yolopool.errors import YolopoolError
from yolopool.v1 import types_pb2
from yolopool.v1.pack_pb2 import HeadAttributes, OnnxGraph, OnnxOutput, PackManifest, TensorEntry
from yolopool.v1.worker_pb2 import PackLocation

_WEIGHTS, _SKELETON = bytes(1024), b"{}"
_WORDS = (
    *TASKS, *ITEM_BYTES, "onnx", "openvino", "tensorrt", "torch", "fp32", "bf16", "int8",
    "model.0.conv.weight", "format", "tensors", "weightsBytes", "skeleton_bytes", "settings",
    hashlib.sha256(_WEIGHTS).hexdigest(), hashlib.sha256(_SKELETON).hexdigest(),
)  # fmt: skip


def manifest(task: str = "detect", backend: str = "") -> PackManifest:
    """Of a small pack that workers take."""
    made = PackManifest(
        format=1,
        architecture_key=hashlib.sha256(_SKELETON).hexdigest(),
        architecture="yolo11n",
        task=task,
        class_names=["circle", "square"],
        stride=32,
        settings=types_pb2.VersionSettings(
            image_size=320, confidence=0.25, iou=0.7, max_detections=300,
            shape_policy=types_pb2.SHAPE_POLICY_SQUARE,
        ),
        weights_bytes=len(_WEIGHTS),
        weights_sha256=hashlib.sha256(_WEIGHTS).hexdigest(),
        skeleton_bytes=len(_SKELETON),
        activation_bytes_per_megapixel=1000,
        parameters=2_600_000,
        gflops=6.5,
        backend=backend,
        precision="fp32" if backend else "",
    )  # fmt: skip
    if task != "classify":
        made.head_mode = types_pb2.HEAD_MODE_ONE_TO_MANY
    heads = {
        "pose": HeadAttributes(keypoints=17, keypoint_values=3),
        "segment": HeadAttributes(mask_coefficients=32),
        "obb": HeadAttributes(angles=1),
    }
    if task in heads:
        made.head.CopyFrom(heads[task])
    if backend:
        output = OnnxOutput(name="output0", shape=[0, 6, 0])
        made.onnx.CopyFrom(
            OnnxGraph(
                opset=17, input="images", dtype="uint8", scale=1.0, outputs=[output],
                layout=types_pb2.OUTPUT_LAYOUT_PLAIN,
            )
        )  # fmt: skip
    else:
        entry = TensorEntry(
            name="model.0.conv.weight", dtype="float32", shape=[4, 3], strides=[3, 1]
        )
        made.tensors.extend(
            [entry, TensorEntry(name="b", dtype="bool", shape=[7], strides=[1], offset=256)]
        )
    return made


def write_pack(folder: Path, text: bytes) -> PackLocation:
    """A pack with this manifest; its location."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in ((MANIFEST, text), (SKELETON, _SKELETON), (WEIGHTS, _WEIGHTS)):
        (folder / name).write_bytes(data)
    return PackLocation(uri=folder.as_uri(), digest=hashlib.sha256(text).hexdigest())


class Packs:
    """The input is a manifest; the other files are those that it was made for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = PackStore(folder / "data")
        write_pack(folder / "pack", b"")

    def run(self, data: bytes) -> str:
        (self._folder / "pack" / MANIFEST).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        place = PackLocation(uri=(self._folder / "pack").as_uri(), digest=digest)
        try:
            self._store.prepare(place)
            self._store.fetch(place).close()
        except YolopoolError as error:
            return reason_of(error)
        return "ok"

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _seeds() -> list[bytes]:
    made = [manifest(task) for task in TASKS]
    made += [manifest("detect", backend) for backend in ("onnx", "openvino", "tensorrt")]
    return [json_format.MessageToJson(one).encode() for one in made]


def _changed(data: bytes, rng: Random, seeds: object) -> bytes:
    """By its fields, or as JSON of any kind."""
    message = PackManifest()
    if rng.random() < 0.6:
        try:
            json_format.Parse(data, message)
        except (json_format.ParseError, UnicodeDecodeError, RecursionError):
            return mutation.of_json(data, rng, _WORDS)
        for _ in range(rng.randint(1, 3)):
            messages.change(message, rng, _WORDS, ())
        return json_format.MessageToJson(message).encode()
    return mutation.of_json(data, rng, _WORDS)


TARGETS = {
    "manifests": Target(
        name="manifests",
        about="packs: a manifest of any text, with the right digest",
        open=Packs,
        seeds=_seeds,
        share=80,
        mutate=_changed,
        words=tuple(word.encode() for word in _WORDS),
        max_bytes=16 * 1024,
    )
}
