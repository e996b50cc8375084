"""Footprints: whose word counts, and what is put on record."""

from dataclasses import replace

from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.version import DeviceVariant
from control_plane.types.worker import WorkerInfo
from control_plane.view.footprints import Footprints
from tests.unit.control_plane.fleets import replica, worker

SIM = FootprintKey("d" * 64, "simulated/fp32", "sim")
SMALL, LARGE = Footprint(100, 10, 5, 4, 8.0), Footprint(200, 10, 5, 4, 8.0)


def telling(name: str, footprint: Footprint | None) -> WorkerInfo:
    one = replica("a", 100, 10)
    one = replace(one, pack=SIM.pack, variant=SIM.variant, footprint=footprint)
    return worker(name, replicas=[one])


def test_what_is_measured_is_current_and_to_be_recorded_once() -> None:
    known = Footprints()
    known.observe(telling("w1", None), {})
    assert known.current == known.unrecorded == {}
    known.observe(telling("w1", SMALL), {})
    assert known.current == known.unrecorded == {SIM: SMALL}
    known.recorded(SIM, SMALL)
    known.observe(telling("w1", replace(SMALL, weights_bytes=101, swap_ms=9.0)), {})
    assert known.unrecorded == {}
    known.observe(telling("w1", LARGE), {})
    assert known.unrecorded == {SIM: LARGE}


def test_what_was_measured_anew_while_it_was_recorded_is_recorded_again() -> None:
    known = Footprints()
    known.observe(telling("w1", SMALL), {})
    known.observe(telling("w1", LARGE), {})
    known.recorded(SIM, SMALL)
    assert known.unrecorded == {SIM: LARGE}


def test_workers_that_measure_apart_do_not_overwrite_each_other_for_ever() -> None:
    known = Footprints()
    for one in (telling("w1", SMALL), telling("w2", LARGE)):
        known.observe(one, {})
    known.recorded(SIM, LARGE)
    for _ in range(3):
        known.observe(telling("w1", SMALL), {})
        known.observe(telling("w2", LARGE), {})
    assert (known.measured(SIM), known.unrecorded) == (LARGE, {})
    known.forget_worker("w1")
    known.observe(telling("w1", SMALL), {})
    assert known.unrecorded == {SIM: SMALL}


def test_a_guess_is_planned_with_and_neither_measured_nor_recorded() -> None:
    known = Footprints()
    known.take({SIM: SMALL})
    known.assume(SIM, LARGE)
    known.observe(telling("w1", None), {})
    assert (known.current[SIM], known.measured(SIM), known.unrecorded) == (LARGE, SMALL, {})
    known.observe(telling("w1", SMALL), {})
    assert known.current[SIM] == SMALL


def test_what_workers_told_is_newer_than_the_record_and_missing_in_an_emptied_one() -> None:
    known = Footprints()
    cpu = FootprintKey(SIM.pack, "torch/fp32", "cpu")
    known.observe(telling("w1", SMALL), {})
    known.take({SIM: LARGE, cpu: LARGE})
    assert known.current == {SIM: SMALL, cpu: LARGE}
    assert known.unrecorded == {SIM: SMALL}
    known.recorded(SIM, SMALL)
    known.take({})
    assert known.unrecorded == {SIM: SMALL, cpu: LARGE}


def test_a_snapshot_keeps_the_mapping_it_was_given() -> None:
    known = Footprints()
    before = known.current
    known.observe(telling("w1", SMALL), {})
    assert before == {}


def test_a_key_is_of_the_variant_that_its_kind_makes() -> None:
    assert FootprintKey.of(SIM.pack, DeviceVariant.usual("sim")) == SIM
    assert FootprintKey.of(SIM.pack, DeviceVariant.usual("cuda")).variant == "torch/fp32"
    told = replace(worker("w"), device_kind="cpu", variant="torch/bf16")
    assert FootprintKey.of(SIM.pack, told.build) == FootprintKey(SIM.pack, "torch/bf16", "cpu")
    assert replace(told, variant="").build == DeviceVariant.usual("cpu")
