"""Texts that callers and operators write: names and references, patterns, keys, schedules, options
in a query, tensors in JSON, another server's configuration.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from urllib.parse import parse_qsl

from control_plane.caller import heard, trace_of_header
from control_plane.gateway.kserve import json_tensors
from control_plane.gateway.kserve.infer_request import images_in
from control_plane.gateway.rest import options
from control_plane.identity import key_secrets
from control_plane.types.access.api_key import is_granted
from control_plane.types.moments import cron, sun
from tests.fuzz import mutation
from tests.fuzz.target import Door, Pure, Target
from worker.preprocess.foreign_bytes import describe
from worker.settings import parse_labels
from yolopool import labels, masking, names
from yolopool.errors import YolopoolError
from yolopool.migration import triton_plan
from yolopool.migration.triton_repository import read_repository


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


# --- names, references, patterns, keys ------------------------------------------------------------

_READERS = (
    lambda text: str(names.parse_ref(text)),
    names.check_name,
    names.parse_class_names,
    lambda text: is_granted((text,), "team-a/shapes+openvino-bf16-cpu"),
    lambda text: is_granted(("team-?/*", text), text),
    key_secrets.parsed,
    masking.masked,
    trace_of_header,
    heard,
    parse_labels,
    lambda text: describe(text.encode()),
    labels.parse_selector,
    lambda text: labels.parse_changes(text.split()),
)


def _read(data: bytes) -> str:
    """The first byte says who reads the rest."""
    reader = _READERS[data[0] % len(_READERS)] if data else _READERS[0]
    reader(_text(data[1:]))
    return f"{data[0] % len(_READERS) if data else 0} ok"


_WRITTEN = (
    "shapes", "team/shapes", "shapes@3", "shapes:stable", "a/b@12", "shapes+openvino-bf16-cpu@3",
    "bolt,nut", "0=bolt,3=nut", "team-a/*", "*", "[a-z]*", "[!a]?", "zone=a,gpu=l4",
    "line=7,site!=b,!c,gpu", "line=7 old-",
    f"yp_{'0' * 10}_{'a' * 48}", f"00-{'1' * 32}-{'2' * 16}-01",
    '{"name": "k", "role": "admin", "grants": ["*"], "tenant": ""}', "data:image/png;base64,AAAA",
    "a.b-c_d/e.f", "9" * 63, "a" * 64,
)  # fmt: skip


def _written() -> list[bytes]:
    return [bytes([kind]) + text.encode() for kind in range(len(_READERS)) for text in _WRITTEN]


# --- schedules ------------------------------------------------------------------------------------

_LINES = (
    "0 6 * * 1-5", "*/5 * * * *", "0 0 29 2 *", "59 23 31 12 7", "0 0 L * *", "0 0 * * 1#5",
    "0,30 8-18/2 1,15 jan-jun mon-fri", "* * * * *", "0 0 1 1 0", "15 2 * 3 sun", "0 0 * * 5L",
    "1-59/2 * * * *", "0 12 LW * *",
)  # fmt: skip
_ZONES = ("", "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe")
_SUN = ("dawn", "sunrise+30m", "sunset-1h5m", "dusk-15m", "dusk+12h")
_PLACES = ("52.52,13.41", "-90,0", "69.65,18.96", "0,180", "-17,-179.9", "91,0", "nan,0", "x")
_MOMENTS = ("0", "1795323600", "1774746000", "-1e9", "4102444800", "1792889999.5")


def _schedule(data: bytes) -> str:
    """Lines: cron, time zone, Unix seconds of this century. In place of cron a moment of the sun,
    and then a latitude and a longitude in place of the zone.
    """
    line, zone, moment = [*_text(data).split("\n"), "", ""][:3]
    try:
        unix_s = min(max(float(moment or 0), 0.0), 4e9)
    except ValueError:
        unix_s = 0.0
    if line.startswith(("d", "s")):
        return _sun(line, zone, unix_s)
    checked = cron.check_cron(line)
    cron.zone_of(zone)
    after, before = cron.next_after(checked, zone, unix_s), cron.latest_at(checked, zone, unix_s)
    assert before <= unix_s < after, f"{before} <= {unix_s} < {after}"
    return "ok"


def _sun(text: str, place: str, unix_s: float) -> str:
    try:
        latitude, longitude = map(float, place.split(","))
    except ValueError:
        latitude = longitude = 0.0
    moment = sun.sun_moment(text, sun.Place(latitude, longitude))
    assert sun.sun_moment(moment.text, moment.place) == moment
    before, after = moment.latest_at(unix_s), moment.next_after(unix_s)
    assert before <= unix_s < after < before + 366 * 2 * 86_400, f"{before}, {unix_s}, {after}"
    moment.absence(unix_s)
    return "ok"


def _schedules() -> list[bytes]:
    count = max(len(_LINES), len(_ZONES))
    return (
        [
            "\n".join((_LINES[n % len(_LINES)], _ZONES[n % 6], _MOMENTS[n % 6])).encode()
            for n in range(count)
        ]
        + ["\n".join((line, zone, _MOMENTS[1])).encode() for line in _LINES for zone in _ZONES]
        + [
            f"{line}\n{place}\n{moment}".encode()
            for line in _SUN
            for place in _PLACES
            for moment in _MOMENTS
        ]
    )


# --- options of a query, and of JSON --------------------------------------------------------------


def _option(data: bytes) -> str:
    """A query, or a JSON object after a brace."""
    if data.startswith(b"{"):
        try:
            values = json.loads(data)
        except (ValueError, RecursionError):
            return "no JSON"
        given: options.DetectParameters = options.of_json(values)
    else:
        given = options.of_pairs(parse_qsl(_text(data), keep_blank_values=True))
    options.request_of(given).SerializeToString()
    return "ok"


_QUERIES = (
    b"model=shapes", b"model=team/shapes@1&confidence=0.5&iou=0.7&max_detections=10&classes=0,2",
    b"model=a&class_confidences=0:0.5,3:0.7&agnostic_nms=true&region_of_interest=1,2,3,4",
    b"model=a&mask_format=rle&top_k=5&all_probabilities=1&image_size=640&tiling=640,0.2",
    b"model=a&accept_damaged=true&priority=bulk&timeout=3.5&classes=1&classes=2",
    b'{"model": "a", "image": "aGk=", "class_confidences": [{"class_id": 0, "confidence": 0.5}], '
    b'"region_of_interest": {"x_min": 0, "y_min": 0, "x_max": 9, "y_max": 9}, "classes": [0, 1], '
    b'"tiling": {"tile_size": 640, "overlap": 0.2}, "priority": "PRIORITY_BULK", "timeout": 1, '
    b'"mask_format": "polygon", "confidence": 0.25}',
)  # fmt: skip
_OPTION_WORDS = tuple(options.DetectBody.model_fields)


def _option_changed(data: bytes, rng: Random, seeds: object) -> bytes:
    if data.startswith(b"{"):
        return mutation.of_json(data, rng, _OPTION_WORDS)
    pairs = data.split(b"&")
    at = rng.randrange(len(pairs))
    name, _, value = pairs[at].partition(b"=")
    words = [word.encode() for word in (*_OPTION_WORDS, *mutation.TEXTS)]
    if rng.random() < 0.4:
        name = rng.choice(words)
    else:
        value = mutation.of_bytes(value, rng, _QUERIES, words, 4096)
    pairs[at] = name + b"=" + value
    return b"&".join(pairs if rng.random() < 0.8 else [*pairs, rng.choice(pairs)])


# --- tensors of KServe v2 in JSON, and the bytes after it -----------------------------------------


def _tensors(data: bytes) -> str:
    """Two bytes of what the JSON's length is said to be, the JSON, and bytes of tensors."""
    said = int.from_bytes(data[:2], "big")
    body = data[2:]
    size = None if said == 0xFFFF else said
    request, _ = json_tensors.infer_request("shapes", "1", body, size)
    task = ("detect", "segment", "classify", "pose", "obb")[len(body) % 5]
    found = images_in(request, "shapes@1", task, "r1")
    for one in found.requests:
        one.SerializeToString()
    return "ok"


def _tensor_seeds() -> list[bytes]:
    image = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "data": ["aGVsbG8="]}
    pixels = {"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [[1] * 12]}
    planes = {"name": "images", "datatype": "FP32", "shape": [1, 3, 2, 2], "data": [[0.5] * 12]}
    sized = {**pixels, "parameters": {"binary_data_size": 12}}
    del sized["data"]
    documents: list[dict[str, object]] = [
        {"inputs": [image]},
        {"inputs": [pixels], "id": "r", "parameters": {"confidence": 0.5, "timeout": 1000}},
        {"inputs": [planes], "outputs": [{"name": "boxes", "parameters": {"binary_data": True}}]},
        {"inputs": [image, image], "parameters": {"binary_data_output": True, "priority": 1}},
    ]
    seeds = [b"\xff\xff" + json.dumps(document).encode() for document in documents]
    text = json.dumps({"inputs": [sized]}).encode()
    return [*seeds, len(text).to_bytes(2, "big") + text + bytes(range(12)), b"\0\0\xff\xd8\xff"]


_TENSOR_WORDS = (
    "inputs", "outputs", "name", "datatype", "shape", "data", "parameters", "BYTES", "FP32",
    "UINT8",
    "binary_data_size", "binary_data", "boxes", "scores", "confidence", "layout",
)  # fmt: skip


def _tensors_changed(data: bytes, rng: Random, seeds: object) -> bytes:
    said = int.from_bytes(data[:2], "big")
    size = len(data) - 2 if said == 0xFFFF else said
    text = mutation.of_json(data[2 : 2 + size], rng, _TENSOR_WORDS)[:0xFFF0]
    head = data[:2] if said == 0xFFFF or rng.random() < 0.1 else len(text).to_bytes(2, "big")
    return head + text + data[2 + size :]


# --- another server's configuration ---------------------------------------------------------------

_CONFIG = b"""name: "shapes"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "images" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 640, 640 ] } ]
output [ { name: "output0" data_type: TYPE_FP32 dims: [ 84, -1 ] label_filename: "labels.txt" } ]
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] }, { kind: KIND_CPU } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100
  priority_levels: 2 default_queue_policy { default_timeout_microseconds: 5000 } }
version_policy: { specific { versions: [ 1, 3 ] } }
parameters { key: "x" value: { string_value: "y" } }
optimization { execution_accelerators { gpu_execution_accelerator: [ { name: "tensorrt" } ] } }
model_warmup [ { name: "w" batch_size: 1 } ]
"""
_PBTXT = (
    _CONFIG,
    b'platform: "pytorch_libtorch"\nversion_policy { latest { num_versions: 2 } }',
    b'platform: "ensemble" ensemble_scheduling { step [ { model_name: "a" model_version: -1 } ] }',
    b'backend: "openvino" input { name: "x" dims: 3 dims: -1 dims: -1 } version_policy { all {} }',
    b"# nothing\n",
)


class _Repository:
    """A folder of a Triton server with one model, whose configuration is the input."""

    def __init__(self, folder: Path) -> None:
        self._root, self._model = folder, folder / "shapes"
        for name in ("1/model.onnx", "3/model.pt", "labels.txt"):
            path = self._model / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("circle\nsquare\n")

    def run(self, data: bytes) -> str:
        (self._model / "config.pbtxt").write_bytes(data)
        models = read_repository(self._root)
        triton_plan.plan(models, hot_standby=bool(len(data) % 2))
        return "no text format" if models[0].fault else "ok"

    def close(self) -> None:
        """Nothing is open."""


def _pure(function: Callable[[bytes], str], *documented: type[Exception]) -> Callable[[Path], Door]:
    return lambda folder: Pure(function, documented)


TARGETS = {
    one.name: one
    for one in (
        Target(
            name="references",
            about="names, references, patterns, keys, labels, selectors, trace headers",
            open=_pure(_read, YolopoolError, ValueError, KeyError, TypeError),
            seeds=_written,
            share=130,
            words=(b"@", b":", b"/", b"+", b"yp_", b"=", b",", b"00-"),
            max_bytes=4096,
        ),
        Target(
            name="schedules",
            about="cron lines, time zones, moments",
            open=_pure(_schedule, YolopoolError),
            seeds=_schedules,
            share=110,
            words=(b"*/", b"L", b"#", b"W", b"sun", b"jan", b"-", b","),
            max_bytes=512,
        ),
        Target(
            name="options",
            about="options of REST, in a query and in JSON",
            open=_pure(_option, YolopoolError),
            seeds=lambda: list(_QUERIES),
            share=130,
            mutate=_option_changed,
            max_bytes=8192,
        ),
        Target(
            name="tensors",
            about="bodies of KServe v2 by HTTP",
            open=_pure(_tensors, YolopoolError),
            seeds=_tensor_seeds,
            share=130,
            mutate=_tensors_changed,
            max_bytes=16384,
        ),
        Target(
            name="pbtxt",
            about="a Triton server's config.pbtxt",
            open=_Repository,
            seeds=lambda: list(_PBTXT),
            share=70,
            words=(b"{", b"}", b"[", b"]", b"<", b">", b":", b"dims", b"TYPE_FP16", b"KIND_MODEL"),
            max_bytes=8192,
        ),
    )
}
