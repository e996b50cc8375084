"""A worker whose device can't compute any more: callers are told to go elsewhere, and its process
ends, over real gRPC.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.contract.control_plane.test_survival import BYTES, Watched
from tests.models import Zoo
from tests.waiting import becomes
from worker.app import App
from worker.backends.fault_injection import Faults
from worker.backends.simulated import SimulatedBackend
from worker.engine.device_health import FAILURES_IN_A_ROW
from worker.hardware.device_stand import DeviceStand
from worker.process.exit_status import DEVICE_FAILED
from worker.replicas import device_monitor
from worker.settings import read_settings
from yolopool import errors
from yolopool.v1 import fleet_pb2


@dataclass
class Breaking:
    """A simulated device that is broken once told so, or whose passes all fail."""

    faults: Faults = field(default_factory=lambda: Faults("sticky=9"))
    fails: bool = False

    def break_(self) -> None:
        with pytest.raises(RuntimeError, match="illegal memory access"):
            self.faults.look(np.full((2, 2, 3), 9, np.uint8))

    def step(self, name: str) -> None:
        self.faults.step(name)
        if self.fails and name == "run":
            raise ValueError("a pass that fails")


@pytest.fixture
async def breaking(tmp_path: Path, zoo: Zoo) -> AsyncIterator[tuple[Breaking, Watched]]:
    device = Breaking()
    flags = ["--device=sim:0", f"--data-dir={tmp_path}", "--control-planes=127.0.0.1:1"]
    app = App(read_settings(flags), SimulatedBackend(0, BYTES, fail=device.step))
    await app.start()
    async with grpc.aio.insecure_channel(app.identity().address) as channel:
        worker = Watched(app, channel)
        await worker.assign(zoo)
        await worker.infer()
        worker.watch()
        yield device, worker
    await app.stop()


async def test_an_error_that_stays_ends_the_process_and_sends_callers_elsewhere(
    breaking: tuple[Breaking, Watched],
) -> None:
    device, worker = breaking
    device.break_()
    calls = [asyncio.ensure_future(worker.infer(request_id=f"r{n}")) for n in range(4)]
    for call in calls:
        with pytest.raises(errors.DeviceFailed, match="an illegal memory access was encountered"):
            await call
    assert (await worker.inventory()).state == fleet_pb2.WORKER_STATE_HUNG
    with pytest.raises(errors.DeviceFailed):
        await worker.infer()
    await becomes(lambda: worker.died == [DEVICE_FAILED])


async def test_a_load_finds_it_too(breaking: tuple[Breaking, Watched], zoo: Zoo) -> None:
    device, worker = breaking
    device.break_()
    with pytest.raises(errors.YolopoolError):
        await worker.assign(zoo, "v8")
    await becomes(lambda: worker.died == [DEVICE_FAILED])


async def test_passes_that_all_fail_end_it_at_last(breaking: tuple[Breaking, Watched]) -> None:
    device, worker = breaking
    device.fails = True
    for _ in range(FAILURES_IN_A_ROW - 1):
        with pytest.raises(errors.InferenceFailed):
            await worker.infer()
    assert not worker.died
    device.fails = False
    await worker.infer()  # it was not the device
    device.fails = True
    for _ in range(FAILURES_IN_A_ROW):
        with pytest.raises(errors.YolopoolError):
            await worker.infer()
    await becomes(lambda: worker.died == [DEVICE_FAILED])


async def test_a_driver_that_hangs_holds_up_neither_looks_nor_the_end_of_the_process(
    breaking: tuple[Breaking, Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = breaking[1].app.device_monitor

    def is_known() -> bool:
        return monitor.stand is not None

    await becomes(is_known)
    answer, asked = threading.Event(), []

    def hang(used_bytes: int, free_bytes: int) -> DeviceStand:
        asked.append(threading.current_thread().daemon)
        answer.wait()
        return DeviceStand(used_bytes, free_bytes)

    monkeypatch.setattr(monitor._observer, "look", hang)
    try:
        await becomes(lambda: bool(asked))
        await monitor.look()
        assert is_known()
        monkeypatch.setattr(device_monitor, "STALE_S", -1.0)
        await monitor.look()
        assert not is_known()
        assert asked == [True]
    finally:
        answer.set()
    await becomes(is_known)
