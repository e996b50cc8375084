"""What a forward pass takes: working memory, as the peak of live tensors counted while they come
and go, and operations. Small passes tell for all sizes.
"""

import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from importer.torch_import.tasks import channels_of

PROBE_SIZE = 256


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of every live storage that is made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(tensor.untyped_storage()) for tensor in tree_iter(args) if _is_tensor(tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if _is_tensor(tensor):
                storage = tensor.untyped_storage()
                key = id(storage)
                if key not in self._alive and key not in given:
                    self._alive[key] = storage.nbytes()
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._died, key)
        self.peak = max(self.peak, self.now)
        return result

    def _died(self, key: int) -> None:
        self.now -= self._alive.pop(key, 0)


class _Operations(TorchDispatchMode):
    """Counts floating point operations as torch's FlopCounterMode does. That one takes every layer
    to pieces in Python, and imports sympy for that; without gradients torch has done so before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


for _mode in (_LiveBytes, _Operations):
    # Torch keeps its compiler from looking into a mode, and imports it for that at the first call:
    # a third of all that an import took. Nothing is compiled here.
    _function = getattr(_mode.__torch_dispatch__, "__wrapped__", None)
    if _function is not None:
        setattr(_function, "__dynamo_disable", _function)


def probe(model: nn.Module, stride: int) -> tuple[Any, int]:
    """Runs one grey image: what the model gives, and activation bytes per image and megapixel
    (fp32), which grow with pixels and images alike.
    """
    size = -(-PROBE_SIZE // stride) * stride
    image = _grey(model, size)
    with torch.inference_mode(), _LiveBytes() as live:
        result = model(image)
    return result, round(live.peak * 1_000_000 / (size * size))


def gflops(model: nn.Module, stride: int, image_size: int) -> float:
    """Billions of floating point operations of one square image, a multiply and an add being two:
    those of convolutions and matrix products.

    Convolutions take a number for each pixel and attention one for each pair of pixels, so that
    flops = a * pixels + b * pixels ** 2 is known from two small images.
    """
    small = -(-PROBE_SIZE // 2 // stride) * stride
    pixels, more = small**2, (2 * small) ** 2
    per_pixel, per_pixel_of_more = _flops(model, small) / pixels, _flops(model, 2 * small) / more
    b = (per_pixel_of_more - per_pixel) / (more - pixels)
    a = per_pixel - b * pixels
    return (a + b * image_size**2) * image_size**2 / 1e9


def _flops(model: nn.Module, size: int) -> int:
    with torch.no_grad(), _Operations() as counter:
        model(_grey(model, size))
    return int(counter.total)


def _grey(model: nn.Module, size: int) -> torch.Tensor:
    return torch.full((1, channels_of(model), size, size), 114 / 255)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
