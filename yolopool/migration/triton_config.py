"""One Triton model: its config.pbtxt as data, and for each of its settings what becomes of it.

Pure. No setting is passed over: what is not translated has its line, and the reason.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from yolopool.migration.pbtxt import Entry, Scalar
from yolopool.migration.steps import Line

CONFIG_FILE = "config.pbtxt"
# What the file of the model says itself; its import reads it there.
_READ_FROM_FILE = ("name", "platform", "backend", "input", "output", "default_model_filename")
# Longest first: why a setting is not taken. A message is told of in one line.
_WHY_NOT: Mapping[str, str] = {
    "input.reshape": "the import reads shapes from the graph",
    "output.reshape": "the import reads shapes from the graph",
    "batch_input": "a YOLO graph takes one image tensor",
    "batch_output": "a YOLO graph gives one image's rows at a time",
    "runtime": "the pool has its own runtimes",
    "optimization.execution_accelerators": "try other backends by `yolopool models build NAME`",
    "optimization.graph": "the pool's runtimes optimise by themselves",
    "optimization.cuda": "CUDA graphs are the worker's choice",
    "optimization.input_pinned_memory": "workers pin memory by themselves",
    "optimization.output_pinned_memory": "workers pin memory by themselves",
    "optimization.gather_kernel_buffer_threshold": "copies are the worker's choice",
    "optimization.eager_batching": "the pool decodes while the device runs",
    "dynamic_batching.preferred_batch_size": "nothing is batched without max_batch_size",
    "dynamic_batching.max_queue_delay_microseconds": "nothing is batched without max_batch_size",
    "dynamic_batching.default_queue_policy.max_queue_size": "nothing is batched without "
    "max_batch_size",
    "dynamic_batching.preserve_ordering": "each answer belongs to its call; order is a stream's",
    "dynamic_batching.priority_levels": "callers say interactive, normal or bulk with a request",
    "dynamic_batching.default_priority_level": "a request without a priority is normal",
    "dynamic_batching.priority_queue_policy": "bulk and normal may fill a part of the queue alone",
    "dynamic_batching.default_queue_policy.timeout_action": "a late request is always refused",
    "dynamic_batching.default_queue_policy.default_timeout_microseconds": "a request has its "
    "caller's deadline: give callers a timeout",
    "dynamic_batching.default_queue_policy.allow_timeout_override": "the deadline is the caller's",
    "sequence_batching": "requests have no state: a YOLO graph sees one image",
    "ensemble_scheduling": "the pool does the steps around a graph itself",
    "instance_group.name": "replicas are named by their workers",
    "instance_group.rate_limiter": "models share a device by the time they used, and by what they "
    "are worth: `yolopool models placement NAME --priority`",
    "instance_group.secondary_devices": "a worker has one device",
    "instance_group.profile": "profiles belong to TensorRT engines",
    "instance_group.passive": "a replica that is loaded serves",
    "instance_group.host_policy": "threads and NUMA nodes are settings of a worker",
    "cc_model_filenames": "builds are kept by compute class: `yolopool models build NAME`",
    "metric_tags": "metrics have model, version and worker as labels",
    "parameters": "it is read by a backend of Triton",
    "model_operations": "libraries of operators are code, which is not taken",
    "model_transaction_policy": "a Detect has one answer",
    "model_repository_agents": "uploads are checked by their SHA-256",
    "response_cache": "the pool keeps no answers",
    "model_metrics": "histograms of latency are always there",
}
_UNKNOWN = "no setting of Triton that this release knows"


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that the model takes; dims without the batch, -1 where free."""

    name: str
    dims: tuple[int, ...]
    channels_last: bool


@dataclass(frozen=True, slots=True)
class Instances:
    """One instance_group: `gpus` empty is every GPU there."""

    kind: str
    count: int
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DynamicBatching:
    """The settings that have one of ours."""

    preferred: tuple[int, ...]
    max_delay_us: int
    max_queue: int


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which numbered folders are served: the newest `latest` of them, or `specific`, or all."""

    latest: int = 1
    every: bool = False
    specific: tuple[int, ...] = ()

    def served(self, there: tuple[int, ...]) -> tuple[int, ...]:
        """Of the numbers that are there, ascending."""
        if self.every:
            return tuple(sorted(there))
        if self.specific:
            return tuple(sorted(set(there) & set(self.specific)))
        return tuple(sorted(there)[-self.latest :]) if self.latest > 0 else ()


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """What a config.pbtxt says, as far as a pool has something for it."""

    name: str = ""
    backend: str = ""
    file_name: str = ""
    max_batch: int = 0
    inputs: tuple[Input, ...] = ()
    label_file: str = ""
    versions: VersionPolicy = field(default_factory=VersionPolicy)
    batching: DynamicBatching | None = None
    instances: tuple[Instances, ...] = ()
    warmup: bool = False
    calls: tuple[str, ...] = ()
    priority: str = ""


def read(root: Entry) -> TritonConfig:
    """The config as data; a value of a wrong type counts as absent."""
    labels = (entry.one("label_filename") for entry in root.all("output"))
    steps = _message(root, "ensemble_scheduling").all("step")
    return TritonConfig(
        name=_text(root, "name"),
        backend=_text(root, "backend") or _text(root, "platform"),
        file_name=_text(root, "default_model_filename"),
        max_batch=_number(root, "max_batch_size"),
        inputs=tuple(map(_input, root.all("input"))),
        label_file=next((str(entry.value) for entry in labels if entry), ""),
        versions=_version_policy(_message(root, "version_policy")),
        batching=_batching(root.one("dynamic_batching")),
        instances=tuple(map(_instances, root.all("instance_group"))),
        warmup=bool(root.all("model_warmup")),
        calls=tuple(_text(step, "model_name") for step in steps),
        priority=_text(_message(root, "optimization"), "priority"),
    )


def lines(root: Entry, becomes: Mapping[str, str]) -> Iterator[Line]:
    """A line for each setting; `becomes` has those that are taken, by path."""
    for entries in _together(root.fields):
        entry = entries[0]
        place, said = f"{CONFIG_FILE}:{entry.line}", _said(entries)
        if entry.path in becomes:
            yield Line(place, said, becomes[entry.path], taken=True)
        elif entry.path in _WHY_NOT:
            yield Line(place, said, _WHY_NOT[entry.path], taken=False)
        elif entry.path.partition(".")[0] in _READ_FROM_FILE and not _has_more(entry):
            yield Line(place, said, "the import reads it from the file", taken=True)
        elif entry.fields:
            yield from lines(entry, becomes)
        elif entry.value == ():
            yield Line(place, said, "nothing is set in it", taken=True)
        else:
            yield Line(place, said, _UNKNOWN, taken=False)


def _together(fields: Sequence[Entry]) -> Iterator[tuple[Entry, ...]]:
    """Values of one repeated field are one line; each message has lines of its own."""
    for path, entries in itertools.groupby(fields, key=lambda entry: entry.path):
        several = tuple(entries)
        if any(entry.fields for entry in several):
            yield from ((entry,) for entry in several)
        elif path:
            yield several


def _has_more(entry: Entry) -> bool:
    """Whether an input or output says what its graph does not."""
    told = (*_WHY_NOT, "output.label_filename")
    return any(field.path in told for field in entry.fields)


def _said(entries: Sequence[Entry]) -> str:
    (first, *_) = entries
    if not first.fields:
        return f"{first.path} {' '.join(map(_shown, entries))}"
    inner = (_said(several) for several in _together(first.fields))
    return f"{first.path} {', '.join(text.removeprefix(f'{first.path}.') for text in inner)}"


def _shown(entry: Entry) -> str:
    if isinstance(entry.value, tuple):
        return "{}"
    return str(entry.value).lower() if isinstance(entry.value, bool) else str(entry.value)


def _input(entry: Entry) -> Input:
    dims = tuple(dim.value for dim in entry.all("dims") if isinstance(dim.value, int))
    return Input(_text(entry, "name"), dims, _text(entry, "format") == "FORMAT_NHWC")


def _instances(entry: Entry) -> Instances:
    return Instances(
        _text(entry, "kind") or "KIND_AUTO",
        _number(entry, "count") or 1,
        tuple(gpu.value for gpu in entry.all("gpus") if isinstance(gpu.value, int)),
    )


def _batching(entry: Entry | None) -> DynamicBatching | None:
    if entry is None:
        return None
    sizes = [size.value for size in entry.all("preferred_batch_size")]
    return DynamicBatching(
        tuple(size for size in sizes if isinstance(size, int)),
        _number(entry, "max_queue_delay_microseconds"),
        _number(_message(entry, "default_queue_policy"), "max_queue_size"),
    )


def _version_policy(entry: Entry) -> VersionPolicy:
    numbers = [number.value for number in _message(entry, "specific").all("versions")]
    latest = _number(_message(entry, "latest"), "num_versions")
    return VersionPolicy(
        latest=latest or 1,
        every=entry.one("all") is not None,
        specific=tuple(number for number in numbers if isinstance(number, int)),
    )


def _message(entry: Entry, name: str) -> Entry:
    """The message of this name; an empty one where there is none."""
    return entry.one(name) or Entry(name, 0, ())


def _scalar(entry: Entry, name: str) -> Scalar | None:
    found = entry.one(name)
    return None if found is None or isinstance(found.value, tuple) else found.value


def _text(entry: Entry, name: str) -> str:
    value = _scalar(entry, name)
    return value if isinstance(value, str) else ""


def _number(entry: Entry, name: str) -> int:
    value = _scalar(entry, name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
