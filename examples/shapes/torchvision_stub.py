"""Makes `import torchvision` work where its compiled part does not fit the installed torch.

Training only: the trainer of the model library imports torchvision for its validation. Serving
never does. Where torchvision works nothing is changed. Import this before ultralytics.
"""

import sys

import torch

# Kept for the life of the process: the operators vanish with their library.
_LIBRARIES: list[torch.library.Library] = []


def _suppress(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    from ultralytics.utils.nms import TorchNMS

    return TorchNMS.nms(boxes, scores, iou_threshold)


def ensure_torchvision() -> bool:
    """Imports torchvision, with a stub for its operators if it must; True if it was stubbed."""
    try:
        import torchvision
    except (ImportError, RuntimeError):
        for name in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    else:
        return False
    library = torch.library.Library("torchvision", "DEF")
    _LIBRARIES.append(library)
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", _suppress, "CPU")
    import torchvision.extension

    torchvision.extension._has_ops = lambda: True
    return True
