"""The words that all programs share: states, priorities, policies, and which backend computes in
which precision on which kind of device. Pure.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum

# The variant that workers of a kind make where they say none.
VARIANTS = {"cpu": "torch/fp32", "cuda": "torch/fp32", "sim": "simulated/fp32"}

TORCH, INT8 = "torch", "int8"
# The exact one of each backend first.
PRECISIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "cpu": {
        TORCH: ("fp32", "bf16"),
        "onnx": ("fp32", INT8),
        "openvino": ("fp32", "bf16", INT8),
    },
    "cuda": {
        TORCH: ("fp32", "fp16", "bf16"),
        "onnx": ("fp32",),
        "tensorrt": ("fp32",),
    },
}

# The most detections that one request or one version may ask for.
MAX_DETECTIONS = 3000
# The most bytes of a message, in both directions.
MAX_MESSAGE_BYTES = 128 * 1024**2
# The most bytes of raw pixels in a request, unless servers were started with another limit. Clients
# encode what is larger.
MAX_RAW_BYTES = 96 * 1024**2
# Of a request's sticky_key.
MAX_STICKY_KEY_CHARS = 200
# Texts that are kept beside a version: how many, and their bytes together.
MAX_METADATA_TEXTS, MAX_METADATA_BYTES = 8, 32 * 1024
# What one pixel of model input takes on a device: three channels, as uint8 and as float32.
INPUT_BYTES_PER_PIXEL = 3 * (1 + 4)


# The label by which a placement names workers of one compute class; each worker has it.
COMPUTE_CLASS = "compute-class"
# The label that says how far a worker process is confined: files, writes or none.
SANDBOX = "sandbox"
# Sums of it differ by their order alone, whatever the device multiplies with.
EXACT_PRECISION = "fp32"
# Compute classes of processors that lack the instructions for a variant.
_LACKING: Mapping[str, Collection[str]] = {
    "torch/bf16": ("sse", "avx2", "avx2-vnni"),
    # Of avx2-vnni, later processors compute in bf16 and earlier ones do not.
    "openvino/bf16": ("sse", "avx2", "avx512", "vnni"),
}
# Of CUDA: bf16 since Ampere.
_SM, _SM_OF_BF16 = "sm_", 80


class ReplicaState(StrEnum):
    ASSIGNED = "ASSIGNED"  # accepted; bytes are on their way
    WARM = "WARM"  # beside the device: its worker brings it there in turn
    HOT = "HOT"  # on the device and warmed up
    RELEASING = "RELEASING"  # waits for its last tickets
    FAILED = "FAILED"  # the load failed


class HeadMode(StrEnum):
    ONE_TO_MANY = "one-to-many"  # candidates, to be suppressed by NMS
    END_TO_END = "end-to-end"  # final boxes


class Priority(StrEnum):
    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BULK = "bulk"


# The longest that a worker waits between two calls to a control plane that does not answer.
MAX_REJOIN_S = 3.0


class ShapePolicy(StrEnum):
    RECT = "rect"  # smallest rectangle of whole strides
    SQUARE = "square"  # always the full square


class OutputLayout(StrEnum):
    """Of an ONNX file: as types.proto has them."""

    OBJECTNESS = "objectness"
    PLAIN = "plain"
    END_TO_END = "end-to-end"
    PAIR = "pair"


def can_compute(variant: str, compute_class: str) -> bool:
    """Whether devices of a compute class can run `variant` (backend/precision). True where that is
    not known: the load says it then.
    """
    capability = compute_class.removeprefix(_SM)
    if variant == "torch/bf16" and capability != compute_class and capability.isdecimal():
        return int(capability) >= _SM_OF_BF16
    return compute_class not in _LACKING.get(variant, ())


def computes_alike(precision: str, checked: str, other: str) -> bool:
    """Whether what was found on devices of the compute class `checked` holds for `other`; an
    empty class is not known.
    """
    return precision == EXACT_PRECISION or (checked == other and bool(other))
