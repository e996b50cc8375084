"""Workers as they report themselves: outdated replicas, live workers, and how a process ended."""

from dataclasses import replace

import pytest

from control_plane.types.version import DeviceVariant, ServedBuild
from control_plane.types.worker import LOOP, Ledger, WorkerExit, WorkerState
from tests.unit.control_plane.fleets import NOW, replica, version, worker

A = version("a")
CPU = DeviceVariant("torch/fp32", "cpu")
LOADED = replace(replica("a"), pack="pack of a", variant="torch/fp32")
EXIT = WorkerExit("w1", "cuda:0", "cuda", "killed by signal 9", "", 1, 2.5, 4.0, 0.0)


def test_a_replica_is_outdated_once_another_pack_or_precision_serves_its_version() -> None:
    assert not LOADED.is_outdated(A, CPU)
    assert replace(LOADED, pack="another").is_outdated(A, CPU)
    assert not replace(LOADED, pack="").is_outdated(A, CPU)  # an older release says nothing
    build = ServedBuild("torch", "bf16", unchecked=True)
    bf16 = replace(A, given=A.given.served_by("cpu", build))
    assert LOADED.is_outdated(bf16, CPU)
    assert A.pack is not None
    graph = replace(bf16, pack=replace(A.pack, backend="openvino"))
    assert not LOADED.is_outdated(graph, CPU)  # a graph has the precision it has


def test_the_sum_of_a_ledger_is_of_its_parts() -> None:
    assert Ledger(1000, 1, 2, 4, 8, 16, 32, measured_bytes=999).used_bytes == 63


@pytest.mark.parametrize("state", WorkerState)
def test_only_a_ready_worker_with_a_lease_takes_work(state: WorkerState) -> None:
    one = worker("w", state=state, lease=NOW + 1)
    assert one.is_live(NOW) is (state is WorkerState.READY)
    assert not one.is_live(NOW + 1)


def test_a_worker_says_its_variant_or_has_the_default_of_its_kind() -> None:
    assert worker("w", kind="cpu").build == DeviceVariant.usual("cpu")
    said = replace(worker("w", kind="cpu"), variant="torch/bf16").build
    assert (said, said.precision) == (DeviceVariant("torch/bf16", "cpu"), "bf16")


def test_an_exit_says_its_last_error_or_its_last_line() -> None:
    output = "starting\n  RuntimeError: CUDA error: out of memory\nbye\n\n"
    assert replace(EXIT, last_output=output).last_line == "RuntimeError: CUDA error: out of memory"
    assert replace(EXIT, last_output="a\nb\n").last_line == "b"
    assert EXIT.last_line == "no output"
    assert str(EXIT) == (
        "killed by signal 9 after 2.5 s, 1 in a row; it is restarted in 4 s: no output"
    )
    assert [replace(EXIT, in_a_row=n).is_loop for n in (LOOP - 1, LOOP)] == [False, True]
