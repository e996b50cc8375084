"""The CUDA streams of a device: one to compute, one to copy."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    pass


class Streams:
    """Streams of a CUDA device beside that of its computations, and marks of time in them; on a
    CPU there is only the caller.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._in = torch.cuda.Stream(device) if self._cuda else None
        self._out = torch.cuda.Stream(device) if self._cuda else None

    def host(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Host memory to copy from or to; torch gives it out anew only after its copies."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=self._cuda)

    def mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, began: Any, ended: Any) -> float:
        """Between two marks, once the device passed them."""
        return float(began.elapsed_time(ended) / 1000 if self._cuda else ended - began)

    def bring(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """On the device, once `mark`s made after this are passed."""
        if self._in is None:
            return tensor
        with torch.cuda.stream(self._in):
            there = tensor.to(device, non_blocking=True)
        return there

    def copying(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._in) if self._in is not None else nullcontext()

    def after(self, mark: Any, tensor: torch.Tensor) -> None:
        """Computations that follow wait for a copy; its memory is theirs."""
        if self._cuda:
            stream = torch.cuda.current_stream()
            stream.wait_event(mark)
            tensor.record_stream(stream)

    def fetch(self, tensor: torch.Tensor, mark: Any) -> "tuple[torch.Tensor, Any]":
        """A copy in host memory, beside the computations that follow, and what to wait for."""
        if self._out is None:
            return tensor, None
        host = self.host(tensor.shape, tensor.dtype)
        with torch.cuda.stream(self._out):
            self._out.wait_event(mark)
            host.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._out)
            return host, self.mark()
