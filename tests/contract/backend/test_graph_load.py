"""The load of a graph, of a runtime that only counts: what is measured, and on which threads."""

import os
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from worker.arrays import U8
from worker.backends.onnx.graph_load import GraphLoad
from worker.backends.onnx.model import Outputs
from worker.hardware import host
from worker.packs.pack import Pack
from yolopool.errors import OutOfMemory
from yolopool.v1.pack_pb2 import PackManifest

SHAPE = (64, 32)


@dataclass
class Counting:
    """A runtime, and its only session."""

    name: str = "counting"
    prepares_in_passes: bool = True
    bytes: int = 1000
    error: Exception | None = None
    # The thread's name and class, and the form of the images, of each pass.
    passes: list[tuple[str, int, tuple[int, ...]]] = field(default_factory=list)
    closed: int = 0

    def open(self) -> None:
        """It is open."""

    def used_bytes(self) -> int:
        return self.bytes

    def load(self, pack: Pack) -> "Counting":
        self.bytes += 300
        return self

    def run(self, images: U8) -> Outputs:
        policy = os.sched_getscheduler(0)
        self.passes.append((threading.current_thread().name, policy, images.shape))
        if self.error is not None:
            raise self.error
        self.bytes += 70
        return [np.zeros((len(images), 5, 10), np.float32)]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def free_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "others_leave_time", lambda: True)


def manifest(batch: int = 0, self_test: bool = False) -> PackManifest:
    made = PackManifest(
        backend="onnx", task="detect", class_names=["a"], weights_bytes=200, precision="fp32"
    )
    made.onnx.batch = batch
    if self_test:
        made.self_test.height = made.self_test.width = 32
    return made


def begun(runtime: Counting, made: PackManifest) -> GraphLoad:
    loading = GraphLoad(runtime, Pack("digest", made, b"", ()), lambda model: None)
    loading.prepare()
    loading.begin()
    loading.make()
    return loading


def test_what_the_first_pass_leaves_is_measured_and_the_pass_yields_to_others() -> None:
    runtime, own = Counting(), os.sched_getscheduler(0)
    loading = begun(runtime, manifest())
    assert loading.try_out(SHAPE, ask=False) == ""
    assert runtime.passes == [("load", os.SCHED_IDLE, (1, *SHAPE, 3))]
    assert os.sched_getscheduler(0) == own != os.SCHED_IDLE
    loading.leave_out(20)
    model = loading.end()
    assert (model.weights_bytes, model.private_bytes) == (200, 150)
    assert runtime.closed == 0


def test_a_runtime_that_prepares_nothing_in_passes_runs_none() -> None:
    runtime = Counting(prepares_in_passes=False)
    assert begun(runtime, manifest()).try_out(SHAPE, ask=True) == "", "it was not asked at import"
    assert runtime.passes == []


def test_the_self_test_runs_beside_too() -> None:
    runtime = Counting(prepares_in_passes=False)
    assert begun(runtime, manifest(batch=2, self_test=True)).try_out(SHAPE, ask=True)
    assert runtime.passes == [("load", os.SCHED_IDLE, (2, 32, 32, 3))]


def test_a_pass_that_does_not_fit_is_said_and_the_session_is_closed_once() -> None:
    runtime = Counting(error=RuntimeError("Failed to allocate memory"))
    loading = begun(runtime, manifest())
    with pytest.raises(OutOfMemory):
        loading.try_out(SHAPE, ask=False)
    loading.drop()
    loading.drop()
    assert runtime.closed == 1
