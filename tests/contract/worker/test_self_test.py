"""A worker asks a graph what its import asked: after a load, and when a replica was idle."""

import asyncio
from pathlib import Path

import pytest

from tests import onnx_graphs
from tests.contract.backend.test_backend import on_the_cpu
from tests.contract.forging import rewrite_weights
from tests.contract.imports import import_in_child
from tests.contract.worker.small_device import monitor_of, small_device
from tests.lying_graphs import LIES, TRUE
from tests.models import Zoo, location
from worker.backends.simulated import SimulatedModel
from worker.packs.pack_store import PackStore
from yolopool.errors import LoadFailed
from yolopool.vocabulary import ReplicaState

OTHERS = ("pixels of twice the size", "scores that are no numbers", "x and y swapped")


async def test_every_runtime_answers_as_the_import_did(tmp_path: Path) -> None:
    backend = on_the_cpu()
    backend.open()
    folder = tmp_path / "pack"
    path = onnx_graphs.write(TRUE["plain"].model(), tmp_path / "true.onnx")
    await import_in_child(path, folder)
    for kind in ("onnx", "openvino"):
        pack = PackStore(tmp_path).fetch(location(folder))
        pack.manifest.backend = kind
        model = backend.load(pack, "fp32")
        assert model.self_test() == ""
        model.close()
    for other in OTHERS:
        place = rewrite_weights(folder, LIES[other].model().SerializeToString())
        model = backend.load(PackStore(tmp_path).fetch(place), "fp32")
        assert model.self_test() != "", other
        model.close()
    backend.close()


def test_what_the_demo_is_built_for_answers_as_at_its_import(zoo: Zoo, tmp_path: Path) -> None:
    backend = on_the_cpu()
    backend.open()
    for kind, precision in (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "int8")):
        pack = PackStore(tmp_path).fetch(zoo.built("shapes", kind, precision))
        model = backend.load(pack, "fp32")
        assert model.self_test() == "", (kind, precision)
        model.close()
    backend.close()


async def test_a_replica_that_answers_otherwise_after_a_pause_is_loaded_again(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["", "rows differ", ""])
    monkeypatch.setattr(SimulatedModel, "self_test", lambda model: next(answers))
    async with small_device(zoo, tmp_path) as two:
        replica = await two.replicas.assign(two.order("a"))
        device_monitor = monitor_of(two, [], rewarm_idle_s=1e-9)
        await device_monitor.look()
        async with asyncio.timeout(20):
            await replica.settled.wait()
        assert (replica.state, replica.swaps_total) == (ReplicaState.HOT, 2)
        assert replica.self_test == "rows differ"
        assert next(answers, None) is None, "it was asked after the second load"
        await two.infer("a")


async def test_a_load_that_answers_otherwise_fails(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimulatedModel, "self_test", lambda model: "rows differ")
    async with small_device(zoo, tmp_path) as two:
        with pytest.raises(LoadFailed, match="not answer here as at its import"):
            await two.replicas.assign(two.order("a"))
        assert not two.ledger.holds("a@1")
        monkeypatch.setattr(SimulatedModel, "self_test", lambda model: "")
        await two.replicas.assign(two.order("a"))
        await two.infer("a")
