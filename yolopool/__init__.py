"""yolopool: many YOLO models from few GPUs. `from yolopool import Client, AsyncClient`.

Names are resolved on first use, so that servers may import `yolopool.errors` or the stubs
without the client's libraries.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolopool.client.async_client import AsyncClient
    from yolopool.client.client import Client
    from yolopool.client.detections import Classification, Detection, Detections, Timing
    from yolopool.client.masks import Mask
    from yolopool.errors import YolopoolError

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "Detection",
    "Detections",
    "Mask",
    "Timing",
    "YolopoolError",
    "__version__",
]

_HOMES = {
    "AsyncClient": "yolopool.client.async_client",
    "Client": "yolopool.client.client",
    "Classification": "yolopool.client.detections",
    "Detection": "yolopool.client.detections",
    "Detections": "yolopool.client.detections",
    "Mask": "yolopool.client.masks",
    "Timing": "yolopool.client.detections",
    "YolopoolError": "yolopool.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'yolopool' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
