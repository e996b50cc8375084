"""Versions: which pack and variant a worker gets, and what a row of a build stands for."""

from dataclasses import replace

from control_plane.types.policy import BatchingConfig, Residency, ResidencyMode
from control_plane.types.version import (
    DeviceVariant,
    ServedBuild,
    ServingSpec,
    VersionKey,
    VersionSettings,
    VersionState,
    builds_of,
)
from tests.unit.control_plane.fleets import version

A = version("a")
CPU, SIM = DeviceVariant.usual("cpu"), DeviceVariant.usual("sim")


def test_a_worker_loads_its_default_variant_unless_a_build_serves_its_kind() -> None:
    assert A.made_by(CPU) == (A.pack, CPU)
    other = version("b").pack
    int8 = ServedBuild("openvino", "int8", other, unchecked=True)
    served = replace(A, given=A.given.served_by("cpu", int8))
    assert served.made_by(CPU) == (other, DeviceVariant("openvino/int8", "cpu"))
    assert served.made_by(SIM) == (A.pack, SIM)
    bf16 = ServedBuild("torch", "bf16", unchecked=True)
    own_pack = replace(A, given=A.given.served_by("cpu", bf16))
    assert own_pack.made_by(CPU) == (A.pack, DeviceVariant("torch/bf16", "cpu"))
    assert served.given.served_by("cpu", None) == A.given


def test_batching_is_set_by_kind_of_device() -> None:
    both = ServingSpec().batched("cpu", BatchingConfig(4)).batched("sim", BatchingConfig(8))
    assert both.batched("cpu", None).batching == {"sim": BatchingConfig(8)}


def test_a_build_runs_on_its_kind_alone() -> None:
    build = ServingSpec(build_of=A.key, served={"cpu": ServedBuild("torch", "bf16")})
    device = DeviceVariant.usual("sim")
    assert (build.runs_on(CPU), build.runs_on(device)) == (True, False)
    assert A.given.runs_on(device)


def test_a_build_does_not_run_where_its_precision_is_not_computed() -> None:
    build = ServingSpec(build_of=A.key, served={"cpu": ServedBuild("openvino", "bf16")})
    for compute_class, runs in (("avx2", False), ("amx", True), ("", True)):
        assert build.runs_on(CPU._replace(compute_class=compute_class)) is runs


def test_a_row_of_a_build_stands_unless_it_failed_or_was_calibrated_otherwise() -> None:
    assert A.stands_for(A)
    assert not replace(A, state=VersionState.FAILED).stands_for(A)
    other = replace(A, given=ServingSpec(calibration="b" * 64))
    assert not A.stands_for(other)


def test_builds_are_named_after_their_version() -> None:
    keys = builds_of(VersionKey("team/a", 3))
    assert VersionKey("team/a+openvino-int8-cpu", 3) in keys
    assert list(keys) == sorted(set(keys))
    assert [builds_of(key) for key in keys] == [()] * len(keys)


def test_off_standby() -> None:
    standby = version("a", residency=Residency(ResidencyMode.HOT_STANDBY, 30.0))
    assert standby.off_standby.given.residency == Residency(ResidencyMode.NORMAL, 30.0)
    assert A.off_standby is A


def test_the_largest_image_is_of_all_sizes_that_may_be_asked_for() -> None:
    assert VersionSettings().largest_image == 0
    assert VersionSettings(640, image_sizes=(320, 1280)).largest_image == 1280
