"""yolopool: serve many YOLO models from few GPUs. `from yolopool import Client, AsyncClient`.

Names are resolved on first use, so that servers can import `yolopool.errors` or the generated
stubs without loading the client's libraries.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolopool.client.async_client import AsyncClient
    from yolopool.client.client import Client
    from yolopool.client.detections import Classification, Detection, Detections, Timing
    from yolopool.client.masks import Mask
    from yolopool.client.model_records import Batching, Drift, Placement
    from yolopool.client.requests import DetectOptions, RegisterOptions
    from yolopool.client.streams.frames import Frame, FrameResult
    from yolopool.errors import (
        ChangeoverFailed,
        DeadlineExceeded,
        FailedPrecondition,
        InvalidArgument,
        ModelNotFound,
        NotFound,
        QueueFull,
        ResourceExhausted,
        Unavailable,
        YolopoolError,
    )

__version__ = "0.1.0"

_MODULES = {
    "yolopool.client.async_client": ("AsyncClient",),
    "yolopool.client.client": ("Client",),
    "yolopool.client.detections": ("Classification", "Detection", "Detections", "Timing"),
    "yolopool.client.masks": ("Mask",),
    "yolopool.client.model_records": ("Batching", "Drift", "Placement"),
    "yolopool.client.requests": ("DetectOptions", "RegisterOptions"),
    "yolopool.client.streams.frames": ("Frame", "FrameResult"),
    "yolopool.errors": (
        "ChangeoverFailed",
        "DeadlineExceeded",
        "FailedPrecondition",
        "InvalidArgument",
        "ModelNotFound",
        "NotFound",
        "QueueFull",
        "ResourceExhausted",
        "Unavailable",
        "YolopoolError",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "AsyncClient",
    "Batching",
    "ChangeoverFailed",
    "Classification",
    "Client",
    "DeadlineExceeded",
    "DetectOptions",
    "Detection",
    "Detections",
    "Drift",
    "FailedPrecondition",
    "Frame",
    "FrameResult",
    "InvalidArgument",
    "Mask",
    "ModelNotFound",
    "NotFound",
    "Placement",
    "QueueFull",
    "RegisterOptions",
    "ResourceExhausted",
    "Timing",
    "Unavailable",
    "YolopoolError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'yolopool' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
