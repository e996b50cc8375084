"""The weights in a file that holds nothing else: tensors by name, whoever wrapped them."""

from collections.abc import Mapping
from typing import Any

import torch

from importer.refusal import INVALID, ImportRefused

# Of data parallel training and compilation, and of a class that keeps the model as `model`, which
# is the first word of a bare model's names too.
_WRAPPERS = ("module.", "_orig_mod.", "model.model.", "model.module.", "model._orig_mod.")


def tensors_of(content: Any) -> dict[str, torch.Tensor]:
    """Plain tensors by key, without the prefixes that wrappers of training leave."""
    for key in ("ema", "model", "state_dict", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    plain = isinstance(content, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    )
    if not plain or not content:
        raise ImportRefused(
            INVALID,
            "the file holds no state dict (tensors by name): register a whole checkpoint without "
            "--arch, or save model.state_dict()",
        )
    return _unwrapped(content)


def _unwrapped(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the words that all names begin with where a model was saved inside wrappers."""
    cut = 0
    while word := next((w for w in _WRAPPERS if all(k.startswith(w, cut) for k in weights)), ""):
        cut += word.index(".") + 1
    return {key[cut:]: value for key, value in weights.items()}
