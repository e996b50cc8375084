"""What a capture that fails leaves behind; the calls of the device are replaced."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from worker.backends.pytorch.capture_policy import SQUARE_AFTER, GraphKey
from worker.backends.pytorch.cuda_graphs import CudaGraphs

KIND = GraphKey("a", "fp32", (32, 32), 1)
WEIGHTS = [torch.ones(8)]


class Shared:
    """An architecture as graphs use it."""

    def bind(self, owner: object, tensors: object) -> None:
        """Nothing is run by these."""

    def unbind(self, owner: object) -> None:
        """Likewise."""


class Device:
    """torch.cuda, whose captures fail at their end as a capture that was broken does."""

    def __init__(self) -> None:
        self.current = "the device thread's"

    @contextmanager
    def graph(self, *_: Any, **__: Any) -> Iterator[None]:
        self.current = "the capture's"
        yield
        raise RuntimeError("operation failed due to a previous error during capture")

    def set_stream(self, stream: str) -> None:
        self.current = stream


def test_a_capture_that_fails_leaves_neither_memory_nor_its_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, graphs = Device(), CudaGraphs(1 << 30)
    monkeypatch.setattr(torch.cuda, "graph", device.graph)
    monkeypatch.setattr(torch.cuda, "set_stream", device.set_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: device.current)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    pixels, shared = torch.zeros(1, 32, 32, 3, dtype=torch.uint8), Shared()
    for _ in range(SQUARE_AFTER):
        ran = graphs.run(KIND, shared, WEIGHTS, pixels, lambda one: one, 0)  # type: ignore[arg-type] # no module is run
        assert ran is None  # eagerly, then
    assert device.current == "the device thread's"
    assert not graphs._slots
    assert graphs._pool is None
