"""Reads a file that holds weights alone: tensors by name, without the prefixes of wrappers."""

from collections.abc import Mapping
from typing import Any

import torch

from importer.refusal import INVALID, ImportRefused

# Prefixes of data parallel training, of compilation, and of a class that has the model as `model`,
# which is also the first word of a bare model's names.
_WRAPPERS = ("module.", "_orig_mod.", "model.model.", "model.module.", "model._orig_mod.")


def tensors_of(content: Any) -> dict[str, torch.Tensor]:
    """The tensors by key, without the prefixes of training wrappers."""
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
    """Removes the prefixes that all names share if a model was saved inside wrappers."""
    cut = 0
    while word := next((w for w in _WRAPPERS if all(k.startswith(w, cut) for k in weights)), ""):
        cut += word.index(".") + 1
    return {key[cut:]: value for key, value in weights.items()}
