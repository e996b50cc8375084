"""Which errors mean that a device is of no use any more, and which do not."""

import pytest

from worker.engine.device_health import FAILURES_IN_A_ROW, DeviceHealth, sticky_words
from yolopool.errors import InferenceFailed, OutOfMemory, YolopoolError


@pytest.mark.parametrize(
    "text",
    [
        # torch, with and without its advice; onnxruntime; TensorRT; NVML; the kernel's log.
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be",
        "CUDA error: device-side assert triggered",
        "CUDA error: unspecified launch failure",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: misaligned address",
        "CUDA error: the launch timed out and was terminated",
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "CUDA error: unknown error",
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=a",
        "[executionContext.cpp::enqueueV3::2666] Cuda Runtime (unspecified launch failure)",
        "NVML: GPU is lost",
        "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.",
    ],
)
def test_an_error_that_stays(text: str) -> None:
    assert sticky_words(RuntimeError(text)) == text.splitlines()[0]
    # Whatever it was made into meanwhile.
    made = InferenceFailed("the forward pass failed")
    made.__cause__ = RuntimeError(text)
    assert sticky_words(made) == text.splitlines()[0]


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "CUDA error: out of memory",
        "CUDA error: invalid argument",
        "CUDA error: operation not permitted when stream is capturing",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
        "unknown error",
        "misaligned address of a row",
        "Given groups=1, weight of size [16, 3, 3, 3], expected input to have 3 channels",
        "",
    ],
)
def test_an_error_that_passes(text: str) -> None:
    assert not sticky_words(RuntimeError(text))
    assert not sticky_words(None)


def test_a_circle_of_causes_has_an_end() -> None:
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert not sticky_words(one)


FAILED = InferenceFailed("no")


def failures(health: DeviceHealth, version: str, count: int, error: YolopoolError = FAILED) -> str:
    return [health.failed(version, error) for _ in range(count)][-1]


def test_passes_that_fail_in_a_row_over_all_versions() -> None:
    health = DeviceHealth()
    health.well("a@1")
    health.well("b@1")
    assert not failures(health, "a@1", FAILURES_IN_A_ROW - 1)
    assert failures(health, "b@1", 1) == (
        f"{FAILURES_IN_A_ROW} passes failed in a row, the last with: no"
    )


def test_what_says_nothing_of_the_device() -> None:
    health = DeviceHealth()
    health.well("a@1")
    assert not failures(health, "never well@1", 10 * FAILURES_IN_A_ROW)
    assert not failures(health, "a@1", 10 * FAILURES_IN_A_ROW, OutOfMemory("full"))
    for _ in range(10):
        assert not failures(health, "a@1", FAILURES_IN_A_ROW - 1)
        health.well("a@1")
    health.forget("a@1")  # another model may come under its name
    assert not failures(health, "a@1", FAILURES_IN_A_ROW)
