"""CUDA graphs: a pass captured once for all models of an architecture, and replayed by one call.

A graph has weights, input and answer at fixed addresses. So each architecture has a slot: a model's
weights are copied into it, on the device, when another model's are there. For the device thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import torch

from worker.backends.pytorch.architecture import Architecture, Output
from worker.backends.pytorch.capture_policy import (
    CaptureDecision,
    CapturePolicy,
    GraphBytes,
    GraphKey,
)

log = structlog.get_logger()
Forward = Callable[[torch.Tensor], Output]


class CudaGraphs:
    """The graphs of one device, within `budget_bytes`; 0: there are none."""

    def __init__(self, budget_bytes: int) -> None:
        self._policy = CapturePolicy(budget_bytes)
        self._graphs: dict[GraphKey, _Graph] = {}
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._pool: Any = None

    @property
    def enabled(self) -> bool:
        """Whether there may be graphs."""
        return self._policy.budget_bytes > 0

    def run(
        self,
        kind: GraphKey,
        shared: Architecture,
        tensors: Sequence[torch.Tensor],
        pixels: torch.Tensor,
        forward: Forward,
        workspace_bytes: int,
    ) -> Output | None:
        """The prediction of `forward(pixels)` with these weights, which the next pass overwrites.
        None: run it eagerly. Only called when `enabled`.
        """
        slot_bytes = sum(tensor.nbytes for tensor in tensors)
        need = GraphBytes(slot_bytes, workspace_bytes, 2 * pixels.nbytes)
        decision = self._policy.decide(kind, need)
        if decision is CaptureDecision.RENEW:
            self.drop()
        if decision in (CaptureDecision.EAGER, CaptureDecision.RENEW):
            return None
        if decision is CaptureDecision.CAPTURE:
            made = self._capture(kind, shared, tensors, pixels, forward)
            if made is None:
                self._policy.refuse(kind)
                self._tidy()
                return None
            self._graphs[kind] = made
            self._policy.note(kind, need)
            log.info("captured", kind=str(kind))
        graph = self._graphs[kind]
        self._slots[kind.slot].hold(tensors)
        graph.pixels.copy_(pixels)
        graph.graph.replay()
        return graph.prediction

    def closed(self, tensors: Sequence[torch.Tensor]) -> None:
        """Forgets the weights of a model that was closed; slots keep their own copy."""
        for slot in self._slots.values():
            slot.forget(tensors)

    def drop(self) -> None:
        """Drops all graphs; their memory goes back to torch."""
        if self._graphs:
            torch.cuda.synchronize()  # one may be running
        self._graphs.clear()
        self._slots.clear()
        self._pool = None
        self._policy.dropped()

    def _tidy(self) -> None:
        """Frees the memory of captures that failed: no budget counts it."""
        used = {kind.slot for kind in self._graphs}
        self._slots = {key: slot for key, slot in self._slots.items() if key in used}
        if not self._graphs:
            self._pool = None

    def _capture(
        self,
        kind: GraphKey,
        shared: Architecture,
        tensors: Sequence[torch.Tensor],
        pixels: torch.Tensor,
        forward: Forward,
    ) -> "_Graph | None":
        stream = torch.cuda.current_stream()
        try:
            slot = self._slots.get(kind.slot)
            if slot is None:
                slot = self._slots[kind.slot] = _Slot(tensors)
            slot.hold(tensors)
            shared.bind(slot, slot.tensors)
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            fixed = pixels.clone()
            forward(fixed)  # prepares anchors and libraries, which can't be captured
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Thread-local: other threads may pin host memory and query events meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                prediction = forward(fixed)
        except RuntimeError as error:  # out of memory too: the pass is run eagerly
            log.warning("a pass can't be captured", kind=str(kind), why=str(error))
            # torch does not restore the stream if the end of a capture fails.
            torch.cuda.set_stream(stream)
            return None
        finally:
            shared.unbind(self._slots.get(kind.slot))  # an eager pass binds its own weights
        # The graph keeps the anchors it reads, whatever the architecture drops.
        return _Graph(graph, fixed, prediction, shared.anchors())


@dataclass(frozen=True, slots=True)
class _Graph:
    graph: Any
    pixels: torch.Tensor
    prediction: Output
    keeps: tuple[torch.Tensor, ...]


class _Slot:
    """Weights at addresses that stay, of one model at a time."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        # `empty_like` keeps strides.
        self.tensors = [torch.empty_like(tensor) for tensor in tensors]
        self._holds: Sequence[torch.Tensor] | None = None

    def hold(self, tensors: Sequence[torch.Tensor]) -> None:
        """Copies weights into the slot, unless they are there already; in order with the device's
        other work.
        """
        if self._holds is not tensors:
            torch._foreach_copy_(self.tensors, list(tensors))
            self._holds = tensors

    def forget(self, tensors: Sequence[torch.Tensor]) -> None:
        if self._holds is tensors:
            self._holds = None
