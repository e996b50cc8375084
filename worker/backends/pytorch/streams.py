"""The streams of a CUDA device that copy images in and answers out, beside its computations."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class Streams:
    """Two copy streams, and time marks in them. On a CPU all happens in the caller."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._in = torch.cuda.Stream(device) if self._cuda else None
        self._out = torch.cuda.Stream(device) if self._cuda else None

    def host(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Host memory to copy from or to; torch reuses it only after its copies are done."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=self._cuda)

    def mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, began: Any, ended: Any) -> float:
        """The seconds between two marks that the device has passed."""
        return float(began.elapsed_time(ended) / 1000 if self._cuda else ended - began)

    def to_device(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A copy on the device, complete once marks made after this call are passed."""
        if self._in is None:
            return tensor
        with torch.cuda.stream(self._in):
            copied = tensor.to(device, non_blocking=True)
        return copied

    def copying(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._in) if self._in is not None else nullcontext()

    def after(self, mark: Any, tensor: torch.Tensor) -> None:
        """Makes later computations wait for a copy, and hands its memory to their stream."""
        if self._cuda:
            stream = torch.cuda.current_stream()
            stream.wait_event(mark)
            tensor.record_stream(stream)

    def fetch(self, tensor: torch.Tensor, mark: Any) -> "tuple[torch.Tensor, Any]":
        """A copy in host memory, made beside later computations, and the mark to wait for."""
        if self._out is None:
            return tensor, None
        host = self.host(tensor.shape, tensor.dtype)
        with torch.cuda.stream(self._out):
            self._out.wait_event(mark)
            host.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._out)
            return host, self.mark()
