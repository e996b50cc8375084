"""What the formats of this package read of the results of one image."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from yolopool.client.drawing import DrawableObject

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


class ExportableObject(DrawableObject, Protocol):
    """One object on an image, in pixels; what its task does not have is None."""

    @property
    def xywhr(self) -> F32 | None: ...


class ExportableClasses(Protocol):
    """The likeliest classes of a whole image."""

    @property
    def class_id(self) -> I64: ...
    @property
    def class_name(self) -> tuple[str, ...]: ...
    @property
    def probability(self) -> F32: ...


class Exportable(Protocol):
    """The results of one image of (width, height): objects, or the classes of the whole."""

    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def classification(self) -> ExportableClasses | None: ...
    def __iter__(self) -> Iterator[ExportableObject]: ...
