"""A worker asks its models a picture, and loads again one that answers otherwise."""

import asyncio
from pathlib import Path

import cv2
import numpy as np

from tests.contract.backend.test_backend import on_the_cpu
from tests.contract.worker.small_device import SmallDevice, monitor_of, small_device
from tests.contract.worker.test_worker import Start, start
from tests.models import Zoo
from tests.waiting import answered, becomes
from worker.arrays import F32
from worker.backends.base import run
from worker.backends.fault_injection import Faults
from worker.backends.simulated import SimulatedBackend
from worker.packs.pack_store import PackStore
from worker.postprocess.outputs import NmsOptions
from worker.replicas.probing.picture_answers import difference, kept
from worker.replicas.probing.probes import Upkeep
from worker.replicas.replica import Replica
from worker.replicas.usage import Sight
from yolopool.graphs import pictures
from yolopool.vocabulary import ReplicaState

__all__ = ["start"]
FORGETS = 77


def forgetful(here: SmallDevice) -> None:
    """From an image of mean FORGETS on nothing is found, until something is loaded."""
    faults = Faults(f"forget={FORGETS}")
    here.backend.look, here.backend.answer, here.fail = faults.look, faults.answer, faults.step


async def found(here: SmallDevice, level: int = 200) -> int:
    return len((await here.infer("a", level=level)).candidates.confidence)


async def settled(replica: Replica) -> None:
    async with asyncio.timeout(20):
        await replica.settled.wait()


async def test_one_that_finds_nothing_any_more_is_asked_and_loaded_again(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path) as two:
        forgetful(two)
        replica = await two.replicas.assign(two.order("a"))
        monitor = monitor_of(two, [], upkeep=Upkeep(0.0, 3600.0, 3))
        await monitor.look()  # the answer that counts from now on
        assert await found(two) == 1
        await found(two, FORGETS)
        assert await found(two) == 0
        replica.sight = Sight(has_found=True, empty=2)
        await monitor.look()
        assert (replica.swaps_total, replica.self_test) == (1, "")
        replica.sight = replica.sight.answered(found=False)
        await monitor.look()
        await settled(replica)
        assert (replica.state, replica.swaps_total) == (ReplicaState.HOT, 2)
        assert replica.self_test == "it finds nothing any more"
        assert await found(two) == 1
        await monitor.look()  # asked once more after the load, and all is well
        assert replica.swaps_total == 2


async def test_one_that_sees_nothing_new_is_asked_ever_more_seldom(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path) as two:
        replica = await two.replicas.assign(two.order("a"))
        monitor = monitor_of(two, [], upkeep=Upkeep(0.0, 3600.0, 100))
        asked = []
        await monitor.look()
        replica.sight = Sight(has_found=True)
        for number in range(1, 1001):
            replica.sight = replica.sight.answered(found=False)
            before = replica.probed_s
            await monitor._probes.look([replica])
            asked += [number] if replica.probed_s != before else []
        assert asked == [100, 200, 400, 800]
        assert replica.swaps_total == 1


async def test_one_that_answers_so_after_a_load_too_is_not_loaded_for_ever(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path) as two:
        replica = await two.replicas.assign(two.order("a"))
        monitor = monitor_of(two, [], upkeep=Upkeep(0.0, 1e-9, 0))
        await monitor.look()
        two.backend.answer = lambda image, answer: type(answer)(
            answer.xyxy[:0], answer.confidence[:0], answer.class_id[:0]
        )
        for _ in range(6):
            await monitor.look()
            await settled(replica)
        assert replica.swaps_total == 2


async def test_passes_that_fail_are_no_device_that_does_not_answer(
    zoo: Zoo, tmp_path: Path
) -> None:
    """Of a model whose passes all fail, requests say so; the device looks well."""

    def fail(step: str) -> None:
        if step == "run":
            raise RuntimeError("no kernel for this")

    async with small_device(zoo, tmp_path) as two:
        replica = await two.replicas.assign(two.order("a"))
        monitor = monitor_of(two, [], upkeep=Upkeep(1e-9, 1e-9, 0))
        two.fail = fail
        await monitor.look()
        assert (replica.state, replica.swaps_total) == (ReplicaState.HOT, 1)


def test_a_model_of_torch_answers_itself_alike_and_another_picture_otherwise(
    zoo: Zoo, tmp_path: Path
) -> None:
    backend = on_the_cpu()
    backend.open()
    model = backend.load(PackStore(tmp_path).fetch(zoo.pack("shapes")), "fp32")
    options = NmsOptions((0.01,) * 3, 0.7, 100, agnostic=False, masks=False)

    def answer(scene: int) -> F32:
        picture = pictures.scene(scene, 320, 320)
        return kept(run(model, [picture], [options]).candidates[0], 320, 320)

    first, again, other = answer(0), answer(0), answer(1)
    assert len(first)
    assert difference(first, again, "fp32") == ""
    assert difference(first, other, "fp32").startswith("boxes differ by ")
    assert difference(first, first[:0], "fp32") in ("", "it finds nothing any more")
    model.close()
    backend.close()


async def test_a_worker_heals_a_model_that_went_blind(
    zoo: Zoo, start: Start, tmp_path: Path
) -> None:
    faults = Faults(f"forget={FORGETS}")
    backend = SimulatedBackend(0, 8 * 1024**3, None, faults.step, look=faults.look)
    backend.answer = faults.answer
    worker = await start(backend, blind_after=5)
    await worker.assign(zoo)
    assert (await worker.infer()).result.detections
    await becomes(lambda: worker.app.device_monitor._probes._answers)
    grey = cv2.imencode(".png", np.full((320, 320, 3), FORGETS, np.uint8))[1].tobytes()
    await worker.infer(image=grey)
    await answered(worker.infer, lambda answer: answer.result.detections)
    (replica,) = (await worker.inventory()).replicas
    assert replica.self_test == "it finds nothing any more"
    assert replica.swaps_total == 2
