"""Checks an architecture in the model library's YAML word by word, then has the library build it.

The text is a stranger's. The library looks names up and evaluates words of it, so that only what
is listed here reaches it: known layers, plain arguments, bounded numbers, known activations.
"""

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from ultralytics.nn import modules
from ultralytics.utils import ROOT

from importer.refusal import INVALID, UNSAFE, UNSUPPORTED, ImportRefused

MAX_TEXT = 64 * 1024
# Files of the library may be named instead of sent.
_LIBRARY_NAME = re.compile(r"[a-z0-9_-]{1,60}\.yaml")
_KEYS = frozenset(
    {"nc", "scales", "scale", "depth_multiple", "width_multiple", "max_channels", "reg_max"}
    | {"end2end", "backbone", "head", "activation", "kpt_shape"}
)
_TORCH_LAYERS = frozenset(
    {"nn.Upsample", "nn.MaxPool2d", "nn.AvgPool2d", "nn.ConvTranspose2d", "nn.Conv2d"}
    | {"nn.Identity", "nn.ZeroPad2d", "nn.BatchNorm2d"}
)
# Keys that the library adds; ignored here.
_KNOWN_BESIDE = frozenset({"yaml_file", "channels", "ch"})
# Modules that do more than compute: TorchVision loads models by name.
_REFUSED_LAYERS = frozenset({"TorchVision", "Index"})
# Heads whose second argument is the shape of keypoints.
_OF_KEYPOINTS = frozenset({"Pose", "Pose26"})
# Words that the library replaces by numbers, and interpolation modes.
_WORDS = frozenset(
    {"nc", "reg_max", "end2end", "kpt_shape", "None", "True", "False", "nearest", "bilinear"}
)
_ACTIVATION = re.compile(r"(?:torch\.)?nn\.(\w{1,40})\((.{0,80})\)")
_MAX_LAYERS, _MAX_REPEATS, _MAX_ARGUMENTS = 500, 100, 20
_MAX_NUMBER, _MAX_MULTIPLE = 16_384, 8
MAX_KEYPOINTS = 500
# Limit for all layers with their repeats; the deepest models of the library have about 80.
_MAX_DEEP = 1_000
# Arguments of torch's activations that are not numbers.
_ACTIVATION_WORDS = frozenset({"none", "tanh"})


def from_text(text: str) -> dict[str, Any]:
    """The checked architecture of a YAML text, or of a library file given by name.

    Raises ImportRefused: ARTIFACT_UNSAFE for what would be code, else ARTIFACT_INVALID.
    """
    text = text.strip()
    if is_library_name(text):
        return checked(_of_library(text))
    if len(text) > MAX_TEXT:
        raise _invalid(f"it has {len(text)} characters, at most {MAX_TEXT} are read")
    try:
        # Nested references could expand to far more than was sent.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise _invalid("it uses anchors and aliases, which no architecture needs")
        fields = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _invalid(f"it is no YAML ({_line(error)})") from error
    if isinstance(fields, Mapping) and (strange := set(fields) - _KEYS - _KNOWN_BESIDE):
        raise _invalid(f"it has unknown keys {', '.join(sorted(map(str, strange)))[:200]}")
    return checked(fields)


def is_library_name(text: str) -> bool:
    """Whether the text is the name of a library file, such as yolo11n.yaml."""
    return _LIBRARY_NAME.fullmatch(text.strip()) is not None


def _of_library(name: str) -> Any:
    stem = Path(name).stem
    plain = re.sub(r"(\d+)([nslmxtcbe])(?=$|-|u)", r"\1", stem, count=1)
    for folder in sorted((Path(ROOT) / "cfg" / "models").iterdir()):
        for candidate in (stem, plain):
            path = folder / f"{candidate}.yaml"
            if path.is_file():
                fields = yaml.safe_load(path.read_text(encoding="utf-8"))
                scale = re.search(r"\d([nslmxtcbe])(?:$|-|u)", stem)
                if scale and "scales" in fields:
                    fields["scale"] = scale[1]
                return fields
    raise _invalid(f"the library has no {name}: give the YAML file itself")


def checked(fields: Any) -> dict[str, Any]:
    """The keys that describe an architecture, all checked; drops other keys."""
    if not isinstance(fields, Mapping):
        raise _invalid("its top level is no mapping")
    known = {key: fields[key] for key in _KEYS if fields.get(key) is not None}
    for key in ("backbone", "head"):
        layers = known.get(key)
        if not isinstance(layers, list) or not 1 <= len(layers) <= _MAX_LAYERS:
            raise _invalid(f"{key} is no list of 1 to {_MAX_LAYERS} layers")
        known[key] = [_layer(layer, f"{key} layer {i}") for i, layer in enumerate(layers)]
    for key in ("nc", "reg_max", "max_channels"):
        if key in known:
            known[key] = int(_number(known[key], key, _MAX_NUMBER))
    for key in ("depth_multiple", "width_multiple"):
        if key in known:
            _number(known[key], key, _MAX_MULTIPLE)
    if not isinstance(known.get("end2end", False), bool):
        raise _invalid("end2end is neither true nor false")
    check_keypoints(known.get("kpt_shape", [1, 2]))
    _check_scales(known)
    _check_depth(known)
    if "activation" in known:
        _activation(known["activation"])
    return known


def build(known: dict[str, Any], classes: int, kind: type[nn.Module], channels: int = 3) -> Any:
    """A model of a checked architecture and of one of the library's kinds, with random weights, for
    images of so many channels. Raises ImportRefused.
    """
    fields = {key: value for key, value in known.items() if key != "activation"} | {"nc": classes}
    usual: nn.Module = modules.Conv.default_act
    if "activation" in known:
        # Set here, because the library would evaluate the text.
        setattr(modules.Conv, "default_act", _activation(known["activation"]))  # noqa: B010 - typed narrower
    try:
        return kind(fields, ch=channels, nc=classes, verbose=False)
    except MemoryError:
        raise
    except Exception as error:
        if "allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise _invalid(f"no model can be built of it ({_line(error)})") from error
    finally:
        setattr(modules.Conv, "default_act", usual)  # noqa: B010


def build_for(
    weights: Mapping[str, torch.Tensor],
    known: dict[str, Any],
    classes: int,
    kind: type[nn.Module],
) -> Any:
    """As `build`, with the channels and the width of the branches for classes that `weights` have.
    A training that started from a model of other classes keeps that one's width (ultralytics
    BaseModel.load), of which its architecture says nothing.
    """
    channels = _channels(weights)
    model = build(known, classes, kind, channels)
    place, head = len(model.model) - 1, model.model[-1]
    for name in ("cv3", "one2one_cv3"):
        branches = getattr(head, name, None)
        if branches is None:
            continue
        weight = weights.get(f"model.{place}.{name}.0.{len(branches[0]) - 1}.weight")
        width = weight.shape[1] if weight is not None and weight.ndim == 4 else 0
        if not 1 <= width <= _MAX_NUMBER or width == branches[0][-1].in_channels:
            continue
        # The width depends on the number of classes; no weights fit a width that no number gives.
        wide = getattr(build(known, width, kind, channels).model[-1], name)
        for branch in wide:
            branch[-1] = nn.Conv2d(branch[-1].in_channels, classes, 1)
        setattr(head, name, wide)
    return model


def _channels(weights: Mapping[str, torch.Tensor]) -> int:
    """Of images, by the first convolution: 1 if it takes one, else 3."""
    first = next((weight for weight in weights.values() if weight.ndim == 4), None)
    return 1 if first is not None and first.shape[1] == 1 else 3


def load_weights(
    model: nn.Module, weights: Mapping[str, torch.Tensor], what: str, remedy: str
) -> None:
    """Loads all weights into a model: every key must be there in its shape, and no other.

    Raises ImportRefused with the counts, the first ten of each kind, and the remedy.
    """
    wanted = model.state_dict()
    missing = [f"{key} {_shape(wanted[key])}" for key in wanted if key not in weights]
    surplus = [f"{key} {_shape(value)}" for key, value in weights.items() if key not in wanted]
    misshaped = [
        f"{key} {_shape(weights[key])} instead of {_shape(wanted[key])}"
        for key in wanted
        if key in weights and weights[key].shape != wanted[key].shape
    ]
    wrong = [
        f"{len(keys)} {word}: {', '.join(keys[:10])}{', ...' if len(keys) > 10 else ''}"
        for word, keys in (("missing", missing), ("surplus", surplus), ("misshaped", misshaped))
        if keys
    ]
    if wrong:
        raise ImportRefused(INVALID, f"the weights do not fit {what}: {'; '.join(wrong)}: {remedy}")
    model.load_state_dict(dict(weights), strict=True)


def _layer(layer: Any, where: str) -> list[Any]:
    """[from, repeats, module, args], as the library reads it."""
    if not isinstance(layer, list | tuple) or len(layer) != 4:
        raise _invalid(f"{where} is not [from, repeats, module, args]")
    source, repeats, name, arguments = layer
    sources = source if isinstance(source, list | tuple) else [source]
    if not all(type(s) is int and -_MAX_LAYERS <= s < _MAX_LAYERS for s in sources):
        raise _invalid(f"{where} comes from {str(source)[:60]}")
    if type(repeats) is not int or not 1 <= repeats <= _MAX_REPEATS:
        raise _invalid(f"{where} is repeated {str(repeats)[:40]} times")
    _check_layer_name(name, where)
    if not isinstance(arguments, list | tuple) or len(arguments) > _MAX_ARGUMENTS:
        raise _invalid(f"{where} has no list of arguments")
    plain = [_argument(argument, where, 0) for argument in arguments]
    if name in _OF_KEYPOINTS and len(plain) > 1 and plain[1] != "kpt_shape":
        check_keypoints(plain[1])
    return [list(sources) if isinstance(source, list | tuple) else source, repeats, name, plain]


def _check_layer_name(name: Any, where: str) -> None:
    if not isinstance(name, str):
        raise _invalid(f"{where} names no layer")
    layer = getattr(modules, name, None) if name.isidentifier() else None
    of_library = isinstance(layer, type) and issubclass(layer, nn.Module)
    if name in _TORCH_LAYERS or (of_library and name not in _REFUSED_LAYERS):
        return
    raise ImportRefused(
        UNSAFE,
        f"the architecture is refused: {where} is {name[:80]!r}, no layer of the list: use the "
        "library's own layers",
    )


def _argument(value: Any, where: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value, where, _MAX_NUMBER)
    if isinstance(value, str) and (value in _WORDS or _is_plain_number(value)):
        return value
    if isinstance(value, list | tuple) and depth < 3 and len(value) <= _MAX_ARGUMENTS:
        return [_argument(item, where, depth + 1) for item in value]
    raise ImportRefused(
        UNSAFE,
        f"the architecture is refused: {where} has the argument {str(value)[:80]!r}: only numbers "
        "and known words are read",
    )


def _is_plain_number(text: str) -> bool:
    return re.fullmatch(r"-?\d{1,6}(\.\d{1,6})?", text) is not None


def _number(value: Any, where: str, most: float) -> float:
    # Written so that it also refuses NaN.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most:
        raise _invalid(f"{where} is {str(value)[:40]!r}: a number up to {most:g} is read")
    return value


def check_keypoints(shape: Any) -> None:
    """Refuses odd keypoints: the head's layers grow with their square."""
    whole = isinstance(shape, list | tuple) and all(type(size) is int for size in shape)
    if not whole or len(shape) != 2 or not 1 <= shape[0] <= MAX_KEYPOINTS or shape[1] not in (2, 3):
        raise _invalid(f"kpt_shape {str(shape)[:40]} is not [1..{MAX_KEYPOINTS}, 2 or 3]")


def _check_scales(known: Mapping[str, Any]) -> None:
    scales, scale = known.get("scales"), known.get("scale")
    if scales is None:
        return
    if not isinstance(scales, Mapping) or len(scales) > 20:
        raise _invalid("scales is no mapping of a few letters")
    for name, numbers in scales.items():
        if not isinstance(numbers, list | tuple) or len(numbers) != 3:
            raise _invalid(f"scale {str(name)[:20]!r} is not [depth, width, max_channels]")
        depth, width, channels = numbers
        _number(depth, "depth", _MAX_MULTIPLE)
        _number(width, "width", _MAX_MULTIPLE)
        _number(channels, "max_channels", _MAX_NUMBER)
    if scale not in scales:
        raise _invalid(
            f"it has scales {', '.join(map(str, scales))} and says not which: add a line such as "
            f"scale: {next(iter(scales), 'n')}"
        )


def _check_depth(known: Mapping[str, Any]) -> None:
    """Refuses a short text that would build for minutes, or more than a worker accepts."""
    scales, scale = known.get("scales"), known.get("scale")
    deep = scales[scale][0] if scales else known.get("depth_multiple", 1)
    layers = sum(max(round(layer[1] * deep), 1) for layer in (*known["backbone"], *known["head"]))
    if layers > _MAX_DEEP:
        raise _invalid(f"it has {layers} layers with their repeats, at most {_MAX_DEEP} are built")


def _activation(words: Any) -> nn.Module:
    """Makes an activation such as torch.nn.SiLU() without evaluating the text."""
    match = _ACTIVATION.fullmatch(words) if isinstance(words, str) else None
    layer = getattr(nn.modules.activation, match[1], None) if match is not None else None
    if match is None or not isinstance(layer, type) or not issubclass(layer, nn.Module):
        raise _unsafe_activation(words)
    try:
        call = ast.parse(f"f({match[2]})", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise _unsafe_activation(words) from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise _unsafe_activation(words)
    positional = [_activation_argument(value, words) for value in call.args]
    named = {str(word.arg): _activation_argument(word.value, words) for word in call.keywords}
    try:
        made: nn.Module = layer(*positional, **named)
    except (ValueError, TypeError, AssertionError) as error:
        raise _invalid(f"its activation {words[:80]!r} can't be made ({_line(error)})") from error
    return made


def _activation_argument(node: ast.expr, words: str) -> float | str:
    """A number, true, false, or a word that torch's activations accept."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise _unsafe_activation(words) from error
    if isinstance(value, bool) or (isinstance(value, str) and value in _ACTIVATION_WORDS):
        return value
    if isinstance(value, int | float) and abs(value) <= _MAX_NUMBER:
        return value
    raise _unsafe_activation(words)


def _unsafe_activation(words: Any) -> ImportRefused:
    return ImportRefused(
        UNSAFE,
        f"the architecture is refused: its activation {str(words)[:80]!r} is none of torch.nn with "
        "plain numbers, and was not run: write one such as nn.ReLU()",
    )


def _shape(value: torch.Tensor) -> str:
    return "x".join(map(str, value.shape)) or "scalar"


def _line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _invalid(wrong: str) -> ImportRefused:
    return ImportRefused(
        INVALID, f"the architecture is refused: {wrong}: give one that the model library reads"
    )


def unsupported_head(mode: str) -> ImportRefused:
    """The error for a head mode that a model does not have."""
    other = "end-to-end" if mode == "one-to-many" else "one-to-many"
    return ImportRefused(
        UNSUPPORTED, f"the model has no {mode} head: register it with --head {other}, or without"
    )
