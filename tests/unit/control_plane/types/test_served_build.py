"""Where a build serves, by the compute classes that it was compared on."""

from dataclasses import replace

import pytest

from control_plane.types.footprint import Footprint, FootprintKey, measured
from control_plane.types.version import DeviceVariant, Drift, ServedBuild, VersionKey
from tests.unit.control_plane.fleets import version
from yolopool.vocabulary import can_compute, computes_alike

INT8 = ServedBuild("openvino", "int8")
ON_AMX = INT8.compared(Drift(images=3, compute_class="amx"))
AMX, AVX2, UNKNOWN = (DeviceVariant("torch/fp32", "cpu", name) for name in ("amx", "avx2", ""))


@pytest.mark.parametrize(
    ("precision", "checked", "other", "alike"),
    [
        ("fp32", "amx", "avx2", True),
        ("fp32", "", "", True),
        ("int8", "amx", "amx", True),
        ("int8", "amx", "avx2", False),
        ("bf16", "amx", "bf16", False),
        ("int8", "amx", "", False),
        ("int8", "", "", False),
        ("fp16", "sm_90", "sm_80", False),
    ],
)
def test_reduced_precision_is_alike_on_one_class_alone(
    precision: str, checked: str, other: str, alike: bool
) -> None:
    assert computes_alike(precision, checked, other) is alike


@pytest.mark.parametrize(
    ("variant", "compute_class", "can"),
    [
        ("openvino/bf16", "avx2", False),
        ("openvino/bf16", "vnni", False),
        ("openvino/bf16", "bf16", True),
        ("openvino/bf16", "amx", True),
        ("openvino/bf16", "", True),
        ("openvino/bf16", "amx-onednn-avx2", True),  # not known
        ("torch/bf16", "avx2", False),
        ("torch/bf16", "avx2-vnni", False),
        ("openvino/bf16", "avx2-vnni", True),  # some do
        ("torch/bf16", "avx512", True),
        ("torch/bf16", "sm_75", False),
        ("torch/bf16", "sm_80", True),
        ("torch/bf16", "sm_120", True),
        ("torch/fp16", "sm_75", True),
        ("openvino/int8", "avx2", True),
        ("torch/fp32", "sse", True),
    ],
)
def test_a_variant_needs_a_processor_that_computes_it(
    variant: str, compute_class: str, can: bool
) -> None:
    assert can_compute(variant, compute_class) is can


def test_a_build_serves_nowhere_that_can_not_compute_it() -> None:
    bf16 = ServedBuild("openvino", "bf16", unchecked=True)
    assert bf16.serves_on("amx")
    assert not bf16.serves_on("avx2")
    one = version("a")
    one = replace(one, given=replace(one.given, served={"cpu": bf16}))
    assert one.made_by(AVX2) == (one.pack, AVX2)
    assert one.made_by(AMX)[1].variant == "openvino/bf16"


def test_a_version_is_made_by_its_build_where_that_was_compared() -> None:
    one = version("a")
    one = replace(one, given=replace(one.given, served={"cpu": ON_AMX}))
    assert one.made_by(AMX)[1] == DeviceVariant("openvino/int8", "cpu", "amx")
    for build in (AVX2, UNKNOWN):
        assert one.made_by(build) == (one.pack, build)
        assert one.unchecked_on(build) == ON_AMX
    assert one.unchecked_on(AMX) is None
    assert one.unchecked_on(AVX2._replace(device_kind="cuda")) is None


def test_a_row_that_is_a_build_runs_on_every_class() -> None:
    row = version("a+openvino-int8-cpu")
    row = replace(row, given=replace(row.given, served={"cpu": INT8}, build_of=VersionKey("a", 1)))
    assert row.made_by(AVX2)[1].variant == "openvino/int8"
    assert row.unchecked_on(AVX2) is None


def test_unchecked_and_exact_builds_serve_on_every_class() -> None:
    assert replace(INT8, unchecked=True).serves_on("")
    assert ServedBuild("openvino", "fp32").serves_on("")
    assert not INT8.serves_on("amx")


def test_a_comparison_of_no_known_class_is_kept_and_counts_nowhere() -> None:
    old = INT8.compared(Drift(images=3))
    assert old.serves_nowhere
    assert not ON_AMX.serves_nowhere
    assert not replace(old, unchecked=True).serves_nowhere
    assert not replace(old, precision="fp32").serves_nowhere
    assert (old.drift, dict(old.checks)) == (Drift(images=3), {})
    assert not old.serves_on("")


def test_a_drift_is_told_where_it_was_found() -> None:
    more = ON_AMX.compared(Drift(images=4, compute_class="avx2"))
    assert [more.drift_on(name) for name in ("amx", "avx2", "vnni")] == [
        Drift(images=3, compute_class="amx"),
        Drift(images=4, compute_class="avx2"),
        None,
    ]
    exact = ServedBuild("openvino", "fp32").compared(Drift(images=5, compute_class="amx"))
    assert exact.drift_on("avx2") == Drift(images=5, compute_class="amx")


def test_a_footprint_of_an_older_release_counts_until_a_class_is_measured() -> None:
    old = FootprintKey("d" * 64, "openvino/int8", "cpu")
    here = replace(old, compute_class="avx2")
    there = replace(old, compute_class="amx")
    small, large = Footprint(1, 1), Footprint(2, 2)
    assert measured(here, {old: small, there: large}) == small
    assert measured(here, {old: small, here: large}) == large
    assert measured(here, {there: large}) is None
