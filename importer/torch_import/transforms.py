"""Checks how a classification checkpoint says that its images were prepared.

The library's training keeps torchvision's transforms in the file. Here they are read as plain
records, so that no torchvision is needed and none of its code runs; what is served is the
library's usual preparation, and a file that says otherwise is refused.
"""

from typing import Any

import torch

from importer.refusal import UNSUPPORTED, ImportRefused
from importer.torch_import import stand_ins

_OF_TRANSFORMS = ("Compose", "Resize", "CenterCrop", "ToTensor", "Normalize")
_NAMES = (
    *(f"torchvision.transforms.transforms.{name}" for name in _OF_TRANSFORMS),
    "torchvision.transforms.functional.InterpolationMode",
)
_KINDS = {name: stand_ins.kind(name) for name in _NAMES}


def permit() -> None:
    """Lets torch's restricted unpickler read these objects as records."""
    torch.serialization.add_safe_globals([(kind, name) for name, kind in _KINDS.items()])


def check(model: Any) -> None:
    """Raises ImportRefused if the model's images were prepared in a way that is not served."""
    given = getattr(model, "transforms", None)
    if given is None:
        return
    listed = getattr(given, "transforms", None)
    steps: list[Any] = list(listed) if isinstance(listed, list | tuple) else []
    kinds = [type(step).__name__ for step in steps]
    if kinds != list(_OF_TRANSFORMS[1:]):
        raise _refusal(f"by {', '.join(kinds)[:200] or 'steps that are not known'}")
    resize, _, _, normalize = steps
    # Kept by its value or by its name, as Python's release has it.
    mode = getattr(getattr(resize, "interpolation", None), "values", ())
    if [str(word).lower() for word in mode] != ["bilinear"]:
        raise _refusal(f"with the interpolation {str(mode)[:60]}")
    mean, deviation = _numbers(normalize, "mean"), _numbers(normalize, "std")
    if mean != [0.0] * 3 or deviation != [1.0] * 3:
        raise _refusal(f"with mean {mean} and deviation {deviation}")


def _numbers(step: Any, name: str) -> list[float]:
    values = getattr(step, name, ())
    values = values.tolist() if isinstance(values, torch.Tensor) else values
    return [float(value) for value in values] if isinstance(values, list | tuple) else []


def _refusal(how: str) -> ImportRefused:
    return ImportRefused(
        UNSUPPORTED,
        f"the model's images were prepared {how}; served is the library's usual preparation "
        "(resize bilinear, centre crop, values 0..1): train it with that",
    )
