"""What the models of one torch device share: streams, captured graphs, architectures, cache.

Used on the device thread only, but for `in_use_bytes`.
"""

import torch

from worker.backends.pytorch.architecture import Architecture
from worker.backends.pytorch.cuda_graphs import CudaGraphs
from worker.backends.pytorch.streams import Streams
from worker.hardware import allocator
from worker.packs.pack import Pack

_MAX_ARCHITECTURES = 64


class TorchRuntime:
    """`graph_bytes` bounds the captured graphs of a CUDA device; 0: no graphs."""

    def __init__(self, device: torch.device, graph_bytes: int) -> None:
        self.device = device
        self.graphs = CudaGraphs(graph_bytes if device.type == "cuda" else 0)
        self.streams = Streams(torch.device("cpu"))  # until `open_streams`
        self._architectures: dict[str, Architecture] = {}

    def open_streams(self) -> None:
        """Once the device is taken."""
        self.streams = Streams(self.device)

    def architecture(self, pack: Pack) -> Architecture:
        """The architecture of a pack, built once. Beyond _MAX_ARCHITECTURES, those that no model
        uses are dropped, oldest first.
        """
        key = pack.manifest.architecture_key
        known = self._architectures.get(key)
        if known is None:
            unused = [k for k, built in self._architectures.items() if not built.users]
            for old in unused[: max(0, len(self._architectures) - _MAX_ARCHITECTURES + 1)]:
                del self._architectures[old]
            known = self._architectures[key] = Architecture(pack.skeleton)
        return known

    def in_use_bytes(self) -> int:
        """Bytes of a CUDA device that are in use, by whomever."""
        free, total = torch.cuda.mem_get_info(self.device)
        return total - free

    def reclaim(self) -> None:
        """Frees what can be made again: graphs, and cached memory."""
        self.graphs.drop()
        self.empty_cache(of_weights=True)

    def empty_cache(self, of_weights: bool = False) -> None:
        """Gives cached memory back, so that other processes and `memory` see it. On a CPU only
        after the weights of a model went (`of_weights`): the next pass uses the rest again.
        """
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif of_weights:
            allocator.give_back()

    def close(self) -> None:
        self._architectures.clear()
        self.reclaim()
