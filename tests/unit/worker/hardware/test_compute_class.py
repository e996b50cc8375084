"""Compute classes: what a processor's flags and the user's limits mean."""

from pathlib import Path

import pytest

from worker.hardware import compute_class
from worker.hardware.host import Host

AVX2 = ["sse4_2", "avx", "avx2", "fma"]
AVX512 = [*AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl"]
VNNI = [*AVX512, "avx512_vnni"]
BF16 = [*VNNI, "avx512_bf16"]
AMX = [*BF16, "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "sse"),
        (AVX2, "avx2"),
        ([*AVX2, "avx_vnni"], "avx2-vnni"),
        (AVX512, "avx512"),
        (VNNI, "vnni"),
        (BF16, "bf16"),
        (AMX, "amx"),
    ],
)
def test_a_processor_is_of_the_highest_class_that_its_flags_allow(
    flags: list[str], expected: str
) -> None:
    assert compute_class.of_cpu("x86_64", flags, {}) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "amx-onednn-avx2"),
        ({"ONEDNN_MAX_CPU_ISA": "avx512_core_vnni"}, "amx-onednn-vnni"),
        ({"DNNL_MAX_CPU_ISA": "AVX512_CORE"}, "amx-onednn-avx512"),
        ({"ONEDNN_MAX_CPU_ISA": "ALL"}, "amx"),
        ({"ATEN_CPU_CAPABILITY": "avx2"}, "amx"),
    ],
)
def test_a_host_where_onednn_is_limited_is_of_a_class_of_its_own(
    environ: dict[str, str], expected: str
) -> None:
    assert compute_class.of_cpu("x86_64", AMX, environ) == expected


@pytest.mark.parametrize(
    ("name", "in_float"),
    [("avx2", True), ("avx512", True), ("vnni", False), ("amx", False), ("sm_90", False),
     ("amx-onednn-avx2", True), ("amx-onednn-vnni", False), ("aarch64-i8mm", False)],
)  # fmt: skip
def test_int8_graphs_run_in_float_without_kernels_that_are_exact(name: str, in_float: bool) -> None:
    assert compute_class.runs_int8_in_float(name) is in_float


def test_a_limit_above_the_processor_changes_nothing() -> None:
    assert compute_class.of_cpu("x86_64", AVX2, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}) == "avx2"


def test_another_machine_is_a_class_of_its_own() -> None:
    assert compute_class.of_cpu("aarch64", ["asimd", "i8mm", "bf16"], {}) == "aarch64-bf16-i8mm"


def test_flags_are_read_from_where_the_kernel_tells_them(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\n")
    assert Host(proc=tmp_path).cpu_flags() == {"fpu", "avx2", "fma"}
    assert Host(proc=tmp_path / "none").cpu_flags() == frozenset()


def test_a_cuda_device_is_of_its_compute_capability() -> None:
    assert compute_class.of_cuda(9, 0) == "sm_90"
