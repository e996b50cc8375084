"""Turns a user's .pt file into a fused module that is safe to write into a pack.

Runs in the child process, in the sandbox. The pack does not get the unpickled model, but the same
architecture built anew and filled with the file's weights.
"""

import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.utils import ROOT, YAML

from importer import class_names
from importer.refusal import INVALID, UNSUPPORTED, ImportRefused
from importer.torch_import import (
    architecture,
    restricted_load,
    stand_ins,
    state_dict,
    training,
    transforms,
)
from importer.torch_import import tasks as heads
from yolopool.v1.types_pb2 import (
    HEAD_MODE_END_TO_END,
    HEAD_MODE_ONE_TO_MANY,
    HEAD_MODE_UNSPECIFIED,
    HeadMode,
)

_PROBE = 64
_OWN = (
    "the file's own architecture",
    "its layers were changed after it was built, by pruning channels for example; export it to "
    "ONNX where it was trained and register the .onnx file, or train it without changing layers",
)


@dataclass(slots=True)
class Checkpoint:
    """A loaded model before fusing, with what the file says about it."""

    model: Any
    task: heads.Task
    class_names: tuple[str, ...]
    trained_size: int
    family: str
    warnings: tuple[str, ...] = ()
    training: Mapping[str, str] = field(default_factory=dict)


def load(path: Path, said: class_names.Said = class_names.NOTHING) -> Checkpoint:
    """Loads a checkpoint; `said` is what the user says about its classes' names.

    Raises ImportRefused if its task is not served.
    """
    content = restricted_load.load(path)
    # A module that was saved by itself has no dictionary round it.
    bare = isinstance(content, nn.Module | stand_ins.Record)
    content = {"model": content} if bare else content
    if not isinstance(content, dict):
        raise ImportRefused(INVALID, "the file holds no checkpoint: upload the .pt of a training")
    model = stand_ins.unwrapped(content.get("ema") or content.get("model"))
    if not isinstance(model, nn.Module):
        raise ImportRefused(
            UNSUPPORTED,
            "the checkpoint holds no model, perhaps only its weights: save the whole model, as the "
            "library's training does, or name its architecture with --arch and --names",
        )
    if content.get("modelopt"):
        raise ImportRefused(
            UNSUPPORTED, "models trained with quantisation are not served: train without it"
        )
    return _described(model, heads.task_of(model), content, said)


def load_weights_only(path: Path, text: str, names: Sequence[str]) -> Checkpoint:
    """Builds an architecture with the weights of a file that holds nothing else: a state dict,
    alone or under `state_dict`, `model` or `ema`. Raises ImportRefused.
    """
    content = restricted_load.load(path)
    held = [content, *content.values()] if isinstance(content, dict) else [content]
    if any(isinstance(stand_ins.unwrapped(value), nn.Module) for value in held):
        raise ImportRefused(
            INVALID, "the file holds a whole model, not weights alone: give it without --arch"
        )
    weights = state_dict.tensors_of(content)
    known = architecture.from_text(text)
    task = heads.task_of_layers(known)
    model = architecture.build_for(weights, known, len(names), task.model)
    architecture.load_weights(model, weights, "the architecture", "give the right one")
    model.names = dict(enumerate(names))
    if architecture.is_library_name(text):
        model.yaml["yaml_file"] = text.strip()  # only the name shown to people
    return _described(model, heads.task_of(model), {}, class_names.NOTHING)


def rebuilt(checkpoint: Checkpoint, head: "HeadMode.ValueType") -> nn.Module:
    """The fused model with the head that was asked for, built anew from its architecture and filled
    with its weights, so that no layer comes from the untrusted file.

    Raises ImportRefused if the file's layers are not what its architecture describes.
    """
    original = checkpoint.model
    head = _chosen_head(original, head)
    known = architecture.checked(getattr(original, "yaml", None) or {})
    weights = original.state_dict()
    classes = len(checkpoint.class_names)
    model = architecture.build_for(weights, known, classes, checkpoint.task.model)
    end_to_end = head == HEAD_MODE_END_TO_END
    original = original.float().eval()
    if original.is_fused():
        # Weights that are already fused only fit a model that is fused the same way.
        model = fuse(model, end_to_end)
        architecture.load_weights(model, original.state_dict(), *_OWN)
    else:
        model.float()
        architecture.load_weights(model, original.state_dict(), *_OWN)
        model = fuse(model, end_to_end)
    _check_finite(model)
    original = fuse(original, end_to_end)
    if not all(map(torch.equal, _answer(model), _answer(original))):
        raise ImportRefused(
            INVALID,
            "the layers in the file give other answers than its own architecture: they were "
            "changed after it was built; train or save it without changing layers by hand, or "
            "export it to ONNX where it was trained and register the .onnx file",
        )
    return model


def _check_finite(model: nn.Module) -> None:
    """Raises ImportRefused, and names the layers, if a weight is NaN or infinite."""
    wrong = {
        name: int((~torch.isfinite(tensor)).sum())
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    }
    if wrong:
        shown = ", ".join(f"{count} in {name}" for name, count in [*wrong.items()][:3])
        raise ImportRefused(
            INVALID,
            f"the weights are not finite: {sum(wrong.values())} are NaN or infinite ({shown}"
            f"{', ...' if len(wrong) > 3 else ''}): the training diverged; upload a checkpoint of "
            "an earlier epoch, or train again with a lower learning rate or without half precision",
        )


def fuse(model: Any, end_to_end: bool) -> nn.Module:
    """Fuses batch normalisation and drops the unused head, as `predict` does."""
    model = model.float().eval()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = True
        elif isinstance(module, nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None
    if hasattr(model, "end2end"):
        model.end2end = end_to_end
    for parameter in model.parameters():
        parameter.requires_grad = False
    fused: nn.Module = model.fuse(verbose=False)
    mkldnn = torch.backends.mkldnn
    if platform.machine() in {"AMD64", "x86_64"} and mkldnn.is_available() and mkldnn.enabled:
        # The library's choice for these CPUs; on others and on CUDA strides do not matter
        # for the result.
        fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return fused.eval()


def _chosen_head(model: Any, asked: "HeadMode.ValueType") -> "HeadMode.ValueType":
    """One-to-many by default, like the library; a checkpoint that was fused already may have the
    other head alone; none where there are no boxes. Raises ImportRefused for one that the model
    does not have.
    """
    head = model.model[-1]
    if not hasattr(head, "end2end"):
        if asked != HEAD_MODE_UNSPECIFIED:
            raise ImportRefused(
                UNSUPPORTED,
                "a model that classifies has no heads to choose from: give it without --head",
            )
        return asked
    has_many = getattr(head, "cv2", None) is not None
    has_one = getattr(head, "one2one_cv2", None) is not None
    if asked == HEAD_MODE_END_TO_END:
        if not has_one:
            raise architecture.unsupported_head("end-to-end")
        return asked
    if not has_many:
        if asked == HEAD_MODE_ONE_TO_MANY:
            raise architecture.unsupported_head("one-to-many")
        return HEAD_MODE_END_TO_END
    return HEAD_MODE_ONE_TO_MANY


def _answer(model: Any) -> tuple[torch.Tensor, ...]:
    """The model's output on an image of noise, so that every weight takes part."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((1, heads.channels_of(model), _PROBE, _PROBE), generator=generator)
    with torch.inference_mode():
        return tuple(torch.nan_to_num(output) for output in heads.answer(model(image)))


def architecture_name(family: str, task: str) -> str:
    """A name for people: yolo11n-detect."""
    stem = re.sub(r"-(seg|pose|obb|cls)(?=-|$)", "", family)
    return f"{stem}-{task}"


def _described(
    model: Any, task: heads.Task, content: dict[str, Any], said: class_names.Said
) -> Checkpoint:
    transforms.check(model)
    classes = heads.class_count(task, model.model[-1])
    found = () if said.names else _in_words(class_names.of_file(getattr(model, "names", None)))
    names, warning = class_names.decide(said, found, classes)
    stride = getattr(model, "stride", None)
    if not isinstance(stride, torch.Tensor) or not 1 <= float(stride.max()) <= 256:
        raise ImportRefused(INVALID, "the model's stride is not 1..256: save the model again")
    arguments = content.get("train_args")
    size = arguments.get("imgsz") if isinstance(arguments, dict) else None
    if isinstance(size, list | tuple) and size:
        size = max(size)
    trained = size if isinstance(size, int) and 32 <= size <= 4096 else task.image_size
    warnings = (warning,) if warning else ()
    told = training.told(content)
    return Checkpoint(model, task, names, trained, _family(model), warnings, told)


def _in_words(names: tuple[str, ...]) -> tuple[str, ...]:
    """ImageNet's words for its codes, as the library shows them."""
    if not class_names.are_codes(names):
        return names
    words = YAML.load(ROOT / "cfg" / "datasets" / "ImageNet.yaml")["map"]
    return tuple(str(words.get(name, name)) for name in names)


def _family(model: Any) -> str:
    yaml = getattr(model, "yaml", None)
    yaml = yaml if isinstance(yaml, dict) else {}
    file, scale = yaml.get("yaml_file"), yaml.get("scale")
    stem = Path(file).stem if isinstance(file, str) else "yolo"
    if isinstance(scale, str) and scale and not re.search(rf"\d{re.escape(scale)}\b", stem):
        stem = re.sub(r"(yolo\w*?\d+)", rf"\g<1>{re.escape(scale)}", stem, count=1)
    return re.sub(r"[^a-z0-9._-]", "", stem.lower())[:60] or "yolo"


def model_stride(model: Any) -> int:
    """The stride of letterboxed sides, in pixels, by AutoBackend's rule."""
    return max(math.ceil(float(model.stride.max())), 32)
