"""Which backends there are on which kind of device, and what each computes in."""

from collections.abc import Mapping

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
