"""From a Triton repository to steps of our own, and a line for all that is not taken.

Pure: what was read in, what is to be done out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from yolopool.client.model_records import Batching
from yolopool.migration import triton_config
from yolopool.migration import triton_repository as repository
from yolopool.migration.steps import (
    Line,
    Load,
    ModelPlan,
    Register,
    SetBatching,
    SetPriority,
    SetResidency,
    Step,
)
from yolopool.migration.triton_config import Input, TritonConfig
from yolopool.migration.triton_repository import ModelFile, TritonModel

MAX_BATCH = 256
_KINDS: Mapping[str, tuple[str, ...]] = {"KIND_GPU": ("cuda",), "KIND_CPU": ("cpu",)}
_EITHER = ("cuda", "cpu")
_PRIORITIES = {"PRIORITY_MAX": "interactive", "PRIORITY_MIN": "bulk"}
# Why a folder without a file that can be taken is not taken, by what it holds.
_NO_FILE: Mapping[str, str] = {
    repository.PLAN: "a TensorRT engine is code for one GPU and one release of TensorRT: put the "
    ".onnx or .pt that it was built from beside it",
    repository.TORCHSCRIPT: "TorchScript is a program: put the checkpoint (.pt of the training) or "
    "an .onnx export beside it",
    repository.PYTHON: "a Python backend is code, which the pool does not run: decoding, "
    "letterboxing and suppression are the pool's own",
    repository.OPENVINO: "a model of OpenVINO is taken as the .onnx or .pt that it was made from: "
    "put that beside it, and build for OpenVINO by `yolopool models build NAME`",
    repository.TENSORFLOW: "a model of TensorFlow is taken as an .onnx export or the checkpoint: "
    "put that beside it",
    repository.ONNX_FOLDER: "an .onnx with its weights in other files: save it as one file",
}
_NOTHING = "it has no model file in a numbered folder"
_TAKEN = (repository.ONNX, repository.CHECKPOINT)


def plan(models: Sequence[TritonModel], *, hot_standby: bool = False) -> tuple[ModelPlan, ...]:
    """What becomes of each model; with `hot_standby` all stay loaded, as Triton keeps them."""
    graphs = {model.folder for model in models if not _refused(model)}
    doors = _doors(models, graphs)
    names: dict[str, str] = {}
    return tuple(_model_plan(model, graphs, doors, names, hot_standby) for model in models)


def _doors(models: Sequence[TritonModel], graphs: set[str]) -> dict[str, str]:
    """Graph to the one ensemble or script that callers reach it by, if there is one alone."""
    callers: dict[str, list[str]] = {}
    for model in models:
        called = graphs & set(model.calls)
        if model.folder not in graphs and len(called) == 1:
            callers.setdefault(called.pop(), []).append(model.folder)
    return {graph: doors[0] for graph, doors in callers.items() if len(doors) == 1}


def _model_plan(
    model: TritonModel,
    graphs: set[str],
    doors: Mapping[str, str],
    names: dict[str, str],
    hot_standby: bool,
) -> ModelPlan:
    if model.folder not in graphs:
        return _not_taken(model, graphs, doors)
    asked_as = doors.get(model.folder, model.folder)
    name = our_name(asked_as)
    if name in names or not name:
        text = f"it would be named {name!r}, as {names.get(name, 'nothing')} is: rename the folder"
        return _no_plan(model, text)
    names[name] = model.folder
    said = [_line(model.folder, f"served as {name}", taken=True)] if name != model.folder else []
    if asked_as != model.folder:
        text = f"served as {name}, which its callers ask for: the pool does the steps around it"
        said = [_line(model.folder, text, taken=True)]
    files = list(_served_files(model))
    steps = _steps(model, name, files, hot_standby)
    lines = (
        *said,
        *_version_lines(name, files),
        *triton_config.lines(model.settings, taken(model.config)),
    )
    return ModelPlan(model.folder, name, tuple(steps), lines)


def _not_taken(model: TritonModel, graphs: set[str], doors: Mapping[str, str]) -> ModelPlan:
    called = sorted(graphs & set(model.calls))
    if len(called) == 1 and doors.get(called[0]) == model.folder:
        text = f"the YOLO graph in it, {called[0]}, is served under this name"
        return ModelPlan(model.folder, "", (), (_line(model.folder, text, taken=True),))
    if called:
        text = f"it calls {', '.join(called)}, which others call too or which are several: ask for "
        return _no_plan(model, f"{text}{' or '.join(called)} itself")
    return _no_plan(model, _refused(model))


def _no_plan(model: TritonModel, text: str) -> ModelPlan:
    return ModelPlan(model.folder, "", (), (_line(model.folder, text, taken=False),))


def _line(place: str, text: str, *, taken: bool) -> Line:
    return Line(place, "", text, taken)


def _refused(model: TritonModel) -> str:
    """Why no file of the model is taken; empty if one is."""
    if model.fault:
        return model.fault
    if any(_served_files(model)):
        return _wrong_inputs(_graph_inputs(model.config))
    if model.config.calls:
        return "an ensemble of models of which none is a YOLO graph"
    every = [file.kind for several in model.files.values() for file in several]
    return next((_NO_FILE[kind] for kind in _NO_FILE if kind in every), _NOTHING)


def _graph_inputs(config: TritonConfig) -> tuple[Input, ...]:
    """Of the graph; those of a Python backend are its script's."""
    return () if config.backend == "python" else config.inputs


def _wrong_inputs(inputs: Sequence[Input]) -> str:
    """Why these can't be the tensors of a YOLO graph; empty if they can, or are not said."""
    if len(inputs) > 1:
        names = ", ".join(one.name for one in inputs)
        return f"it takes {len(inputs)} tensors ({names}): a YOLO graph takes one, of an image"
    for one in inputs:
        if _sides(one) is None:
            dims = " x ".join(map(str, one.dims))
            return f"its input {one.name} is {dims}: a YOLO graph takes channels, height, width"
    return ""


def _sides(one: Input) -> tuple[int, int] | None:
    """(height, width) of an image tensor, -1 where free, with or without a batch; None: none."""
    if len(one.dims) not in (3, 4):
        return None
    dims = one.dims[-3:]
    height, width, channels = dims if one.channels_last else (dims[1], dims[2], dims[0])
    return (height, width) if channels in (1, 3, 4, -1) else None


def _served_files(model: TritonModel) -> Iterator[tuple[int, ModelFile]]:
    """Each version that Triton serves, with the file of it that can be taken."""
    for number in model.config.versions.served(tuple(model.files)):
        found = _choose(model.files[number], model.config.file_name) or (
            _choose(model.beside, "") if len(model.files) == 1 else None
        )
        if found is not None:
            yield number, found


def _choose(files: Sequence[ModelFile], name: str) -> ModelFile | None:
    """The file that Triton itself loads, if it can be taken; else the only one that can."""
    can = [file for file in files if file.kind in _TAKEN]
    named = [file for file in can if file.path.name in (name, "model.onnx")]
    if named:
        return named[0]
    return can[0] if len(can) == 1 else None


def _version_lines(name: str, files: Sequence[tuple[int, ModelFile]]) -> Iterator[Line]:
    for place, (number, file) in enumerate(files, start=1):
        text = f"{name}@{place} of a new model, by {file.path.name}"
        yield Line(f"version {number}", "", text, taken=True)


def _steps(
    model: TritonModel, name: str, files: Sequence[tuple[int, ModelFile]], hot_standby: bool
) -> Iterator[Step]:
    config = model.config
    first, *others = [
        Register(name, file.path, _image_size(config), model.labels) for _, file in files
    ]
    yield first
    batching = _batching(config)
    for kind in _device_kinds(config) if batching is not None else ():
        assert batching is not None
        yield SetBatching(name, kind, batching)
    if config.priority in _PRIORITIES:
        yield SetPriority(name, _PRIORITIES[config.priority])
    # Later versions begin with the settings of those before.
    yield from others
    on_cpu = any(group.kind == "KIND_CPU" for group in config.instances)
    if hot_standby or on_cpu:
        yield SetResidency(name, "hot-standby" if hot_standby else "normal", on_cpu)
    replicas = len({gpu for group in config.instances for gpu in group.gpus})
    if replicas > 1:
        yield Load(name, replicas, hot_standby)


def _image_size(config: TritonConfig) -> int | tuple[int, int] | None:
    inputs = _graph_inputs(config)
    sides = _sides(inputs[0]) if inputs else None
    if sides is None or min(sides) <= 0:
        return None
    return sides[0] if sides[0] == sides[1] else sides


def _device_kinds(config: TritonConfig) -> tuple[str, ...]:
    kinds = {kind for group in config.instances for kind in _KINDS.get(group.kind, _EITHER)}
    return tuple(kind for kind in _EITHER if kind in kinds) or _EITHER


def _batching(config: TritonConfig) -> Batching | None:
    """Ours of theirs; None where Triton batches nothing."""
    if config.max_batch <= 0:
        return None
    largest = min(config.max_batch, MAX_BATCH)
    asked = config.batching
    if asked is None:
        return Batching(largest)
    sizes = sorted({size for size in asked.preferred if 1 <= size <= largest})
    return replace(
        Batching(largest, tuple(sizes)),
        max_delay_ms=asked.max_delay_us / 1000,
        queue_capacity=max(0, asked.max_queue),
    )


def taken(config: TritonConfig) -> dict[str, str]:
    """What becomes of the settings that are taken, by path."""
    batching = _batching(config)
    becomes = {
        "max_batch_size": f"--max-batch {batching.max_batch}"
        if batching
        else "no batching here either, unless its graph takes a batch of any size",
        "version_policy": "versions are registered in this order",
        "model_warmup": "a worker warms up each model before it serves",
        "optimization.priority": f"--priority {_PRIORITIES.get(config.priority, 'normal')}",
        "output.label_filename": "--names",
        "input.format": "the import reads it from the graph",
        "instance_group.kind": f"batching is set for {' and '.join(_device_kinds(config))}",
        "instance_group.count": "one replica a worker: it batches, and shares its device itself",
        "instance_group.gpus": "--replicas: so many workers; name them by labels for other ones",
    }
    if batching and config.batching:
        becomes["dynamic_batching.preferred_batch_size"] = "--prefer"
        becomes["dynamic_batching.max_queue_delay_microseconds"] = "--max-delay-ms"
        becomes["dynamic_batching.default_queue_policy.max_queue_size"] = "--queue, of each worker"
    return becomes


def our_name(name: str) -> str:
    """A name of Triton's as one of ours: a-z, 0-9, '.', '_' and '-'."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-")[:63].rstrip("._-")
