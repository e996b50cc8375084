"""CUDA graphs: a pass captured once for all models of an architecture, and run by one call.

A graph reads weights, input and answer at fixed addresses. So each architecture has a slot, to
which a model's weights are copied on the device when another's are there. Of the device thread.
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
    """Of one device; `budget_bytes` 0: there are none."""

    def __init__(self, budget_bytes: int) -> None:
        self._policy = CapturePolicy(budget_bytes)
        self._graphs: dict[GraphKey, _Graph] = {}
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._pool: Any = None

    @property
    def enabled(self) -> bool:
        """Whether there may be one."""
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
        """The prediction of `forward(pixels)` with these weights; it is overwritten by the next
        pass. None: to be run eagerly. Only where they are `enabled`.
        """
        need = GraphBytes(sum(one.nbytes for one in tensors), workspace_bytes, 2 * pixels.nbytes)
        verdict = self._policy.decide(kind, need)
        if verdict is CaptureDecision.RENEW:
            self.drop()
        if verdict in (CaptureDecision.EAGER, CaptureDecision.RENEW):
            return None
        if verdict is CaptureDecision.CAPTURE:
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
        """A model's weights go: of its graphs only their own copy stays."""
        for slot in self._slots.values():
            slot.let_go(tensors)

    def drop(self) -> None:
        """Gives the memory of all graphs back to torch."""
        if self._graphs:
            torch.cuda.synchronize()  # one may be running
        self._graphs.clear()
        self._slots.clear()
        self._pool = None
        self._policy.dropped()

    def _tidy(self) -> None:
        """Keeps no memory for graphs that did not come about: no budget knows of it."""
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
            forward(fixed)  # what a first pass prepares can't be captured: anchors, libraries
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other threads pin host memory and ask for events meanwhile: that is not its business.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                prediction = forward(fixed)
        except RuntimeError as error:  # out of memory too: the pass is run eagerly
            log.warning("a pass can't be captured", kind=str(kind), why=str(error))
            # torch does not come back from its stream if the end of a capture fails.
            torch.cuda.set_stream(stream)
            return None
        finally:
            shared.unbind(self._slots.get(kind.slot))  # whoever runs eagerly binds anew
        # The anchors that it reads stay, whatever the architecture forgets.
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
        # Strides are kept.
        self.tensors = [torch.empty_like(tensor) for tensor in tensors]
        self._holds: Sequence[torch.Tensor] | None = None

    def hold(self, tensors: Sequence[torch.Tensor]) -> None:
        """Copies them here, in the order of the device's work, unless they are here already."""
        if self._holds is not tensors:
            torch._foreach_copy_(self.tensors, list(tensors))
            self._holds = tensors

    def let_go(self, tensors: Sequence[torch.Tensor]) -> None:
        if self._holds is tensors:
            self._holds = None
