"""The model library's own `predict`, on images in memory, also where torchvision's operators do not
fit the torch that is installed.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]


class Library:
    """One checkpoint as the library serves it. `end_to_end` asks for that head."""

    def __init__(self, checkpoint: Path, task: str, end_to_end: bool, image_size: int) -> None:
        from ultralytics.models import YOLO

        self._model: Any = YOLO(checkpoint, task=task)
        self._task, self._image_size = task, image_size
        self._head: dict[str, Any] = {"nms": False} if end_to_end else {}

    def predict(self, images: Sequence[U8], rect: bool) -> list[Any]:
        """Results of the images in one call, in one batch; masks of every pixel."""
        with _transforms() if self._task == "classify" else _no_warm_up():
            return list(
                self._model.predict(
                    list(images), imgsz=self._image_size, rect=rect, verbose=False, device="cpu",
                    save=False, retina_masks=True, **self._head,
                )
            )  # fmt: skip


@contextmanager
def _no_warm_up() -> Iterator[None]:
    """All that the library's warm-up does is to import torchvision, which may fail."""
    from ultralytics.nn.autobackend import AutoBackend

    usual = AutoBackend.warmup
    AutoBackend.warmup = lambda self, **_: None
    try:
        yield
    finally:
        AutoBackend.warmup = usual


@contextmanager
def _transforms() -> Iterator[None]:
    """torchvision's transforms, which are Python on PIL images, without its operators; gone after,
    or the library would take its suppression.
    """
    try:
        import torchvision.ops
    except RuntimeError:
        _forget()
        sys.modules["torchvision._meta_registrations"] = ModuleType("no operators")
        import torchvision.transforms  # noqa: F401

        with _no_warm_up():
            yield
        _forget()
    else:
        yield


def _forget() -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
