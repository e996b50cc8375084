"""A control plane with two workers and some models, to be asked what nobody would ask; and the
messages to ask it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from control_plane.services.register import SERVICES
from tests.contract.control_plane_rig import Rig, ScriptedWorker
from tests.fuzz import messages, mutation
from tests.fuzz.doors import made_calls
from tests.fuzz.doors.made_calls import JPEG
from tests.fuzz.target import own_loop
from tests.unit.worker.preprocess.encoded_images import ALL
from yolopool.errors import YolopoolError
from yolopool.v1 import types_pb2

KSERVE = "inference.GRPCInferenceService"
WORKER = "yolopool.v1.WorkerService"
ARTIFACT = hashlib.sha256(b"a").hexdigest()
WORDS = (
    "a", "team/b", "c", "a@1", "team/b:stable", "c:x", "a+openvino-bf16-cpu", "w1", "w2", "i1",
    "nobody", "cpu", "cuda", "sim", "torch", "onnx", "openvino", "openvino/bf16", "onnx/int8",
    "fp32", "bf16", "int8", "detect", "segment", "pose", "obb", "classify", ARTIFACT, "0" * 64,
    "day",
    "0 6 * * 1-5", "*/5 * * * *", "Europe/Berlin", "team-a/*", "*", "[a", "1-0", "0-0",
    "18446744073709551615-1", "127.0.0.1:1", "[::1]:2", "file:///nowhere", "s3://b/k",
    "memory://x",
    "yolov8n.yaml", "circle", "LEDGER_FULL", "0123456789", "image", "BYTES", "UINT8", "FP32",
    "boxes", "../../etc/passwd", "r1", "zone",
)  # fmt: skip
DATA = (JPEG, b"jpeg", b"", b"a", b"weights", bytes(12), JPEG[:100], b"\1\0\0\0x", ALL["png 1 bit"])
# How long one call may take; what it began goes on.
CALL_S = 0.05
MODELS = ("a", "team/b", "c")
# An operator is told of these, whoever reports them.
SAYS = ("log: worker process ended", "log: I/O process ended")
# Inputs delete models and send workers away: so often all are there again.
_MENDED_EVERY = 40


class Pool:
    """A running pool, in a loop of its own that stands still between calls."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.loop = own_loop()
        self.rig = Rig(
            folder,
            default_deadline_s=CALL_S,
            drain_grace_s=0.0,
            max_artifact_bytes=2**20,
            **changes,
        )
        self.workers: list[ScriptedWorker] = []
        self._runs = 0
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        await self.rig.__aenter__()
        for name in ("w1", "w2"):
            self.workers.append(await self.rig.worker(name, models=3))
        await self.rig.ready(*MODELS)

    async def _mend(self) -> None:
        view = self.rig.plane.view
        for worker in self.workers:
            if worker.name not in view.workers:
                await worker.fall_silent()
                await worker.join(self.rig.addresses.grpc)
        there = view.catalogue.ready_names()
        for name in MODELS:
            if name not in there:
                await self.rig.register(name, name.encode())
                await self.rig.import_next()

    def after(self) -> None:
        """An input was run: forgets what the scripted workers noted, which is no part of what is
        tested, and now and then puts back what inputs took away.
        """
        self._runs += 1
        if self._runs % _MENDED_EVERY == 0:
            # What an input left in the way of that is no fault: all is opened anew some time.
            with suppress(YolopoolError, grpc.RpcError, TimeoutError, AssertionError):
                self.loop.run_until_complete(asyncio.wait_for(self._mend(), 1.0))
        for worker in self.workers:
            for noted in (worker.inferred, worker.assigned, worker.released, worker.footprints):
                noted.clear()
            for more in (worker.forced, worker.drained, worker.prefetched):
                more.clear()

    def close(self) -> None:
        self.loop.run_until_complete(self.rig.__aexit__())
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))


# --- messages -------------------------------------------------------------------------------------


@cache
def methods(*services: str) -> dict[str, MethodDescriptor]:
    """By the path of gRPC."""
    known = descriptor_pool.Default()
    return {
        f"/{service}/{method.name}": method
        for service in services
        for method in known.FindServiceByName(service).methods
    }


def control_plane_methods() -> dict[str, MethodDescriptor]:
    return methods(*SERVICES)


def split(data: bytes) -> tuple[str, bytes]:
    """An input of a call: its method's path in the first line, and the message, or messages."""
    name, _, body = data.partition(b"\n")
    return name.decode("latin-1"), body


def joined(name: str, body: bytes) -> bytes:
    return name.encode("latin-1") + b"\n" + body


def frames(body: bytes) -> list[bytes]:
    """The messages of a stream, each behind its length in four bytes."""
    found: list[bytes] = []
    at = 0
    while at < len(body) and len(found) < 16:
        end = at + 4 + int.from_bytes(body[at : at + 4], "big")
        found.append(body[at + 4 : end])
        at = end
    return found


def framed(parts: Sequence[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def message_class(method: MethodDescriptor) -> type[Message]:
    return message_factory.GetMessageClass(method.input_type)


def changed(known: dict[str, MethodDescriptor], words: Sequence[str]) -> Any:
    """A mutator of calls of these methods, field by field."""
    names = sorted(known)

    def change(data: bytes, rng: Random, seeds: Sequence[bytes]) -> bytes:
        name, body = split(data)
        if name not in known or rng.random() < 0.1:
            name, body = rng.choice(names), b""
        method = known[name]
        kind = message_class(method)
        parts = frames(body) if method.client_streaming else [body]
        if not parts or (method.client_streaming and rng.random() < 0.2):
            parts.append(rng.choice(parts) if parts else b"")
        at = rng.randrange(len(parts))
        parts[at] = _part(kind, parts[at], rng, words, seeds)
        return joined(name, framed(parts) if method.client_streaming else parts[0])

    return change


def _part(
    kind: type[Message], data: bytes, rng: Random, words: Sequence[str], seeds: Sequence[bytes]
) -> bytes:
    message = messages.parsed(kind, data)
    if message is None:
        message = kind()
    if not data or rng.random() < 0.05:
        messages.fill(message, rng, words, DATA)
    for _ in range(rng.randint(1, 3)):
        messages.change(message, rng, words, DATA)
    made = message.SerializeToString()
    return mutation.of_bytes(made, rng, seeds, (), 16384) if rng.random() < 0.03 else made


def seeds(known: dict[str, MethodDescriptor], words: Sequence[str]) -> list[bytes]:
    """For each method an empty message, and some that are filled: with chance of one seed, so that
    they are always the same.
    """
    rng, made = Random(0), []
    for name, method in sorted(known.items()):
        for number in range(3):
            parts = []
            for _ in range(3 if method.client_streaming else 1):
                message = message_class(method)()
                if number:
                    messages.fill(message, rng, words, DATA)
                _name(message, rng)
                parts.append(message.SerializeToString())
            made.append(joined(name, framed(parts) if method.client_streaming else parts[0]))
    of_package = {name.rpartition(".")[2]: name for name in known}
    for short, asked in made_calls.made():
        if (name := of_package.get(short, "")) in known:
            sent = [message.SerializeToString() for message in asked]
            made.append(joined(name, framed(sent) if known[name].client_streaming else sent[0]))
    return made


def _name(message: Any, rng: Random) -> None:
    """Names what is there, so that the call gets further."""
    for field in message.DESCRIPTOR.fields:
        if field.name in ("model", "name", "model_name") and field.message_type is None:
            setattr(message, field.name, rng.choice(MODELS))
        elif field.name == "worker" and field.message_type is None:
            message.worker = "w1"
        elif field.name == "encoded":
            message.encoded = JPEG
        elif _is_version(field) and not field.is_repeated:
            getattr(message, field.name).MergeFrom(types_pb2.VersionKey(model="a", version=1))


def _is_version(field: Any) -> bool:
    kind = field.message_type
    return kind is not None and kind.full_name == types_pb2.VersionKey.DESCRIPTOR.full_name


async def stream_of(parts: Sequence[Message]) -> AsyncIterator[Message]:
    for part in parts:
        yield part
