"""Faults that a worker and its supervisor bear by themselves: hangs, devices that fail, crashes,
crash loops, an image that crashes, callers who leave, and being told to end under load.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tests.chaos.doors import ControlPlaneDoor, WorkerDoor
from tests.chaos.pictures import Picture, boxes_of, grey
from tests.chaos.pool import BREAKS, CRASHES, HANGS
from tests.chaos.setting import GREYS, MODELS
from tests.chaos.trial import Scenario, Trial
from tests.chaos.watch import count_of
from yolopool.errors import DeviceFailed, DeviceHung, ImageQuarantined, YolopoolError

MODEL = MODELS[0]
AT_ONCE, LEAVERS = 16, 120
# Of a burst that a process has to finish when it is told to end; less than a worker's queue.
BURST = 40
DEADLINE_S = 20.0


async def hang_a_device(trial: Trial) -> None:
    """An image whose pass never ends: who waits for it is told, and the process starts anew."""
    name, model = await _a_holder(trial)
    door, (image,) = trial.pool.workers[name], grey((HANGS,), 1)
    await door.ask(model, grey((60,), 1)[0].encoded, DEADLINE_S)  # so that a pass is measured
    trial.strike()
    told = ""
    try:
        await door.ask(model, image.encoded, DEADLINE_S)
    except DeviceHung:
        trial.seconds["hang_told_s"] = trial.now() - trial.struck_s
    except YolopoolError as error:
        told = error.reason
    trial.check("who waits for a hung device is told so", not told, told or "DEVICE_HUNG")
    await _told(trial, name, "hung", "fault_injection.py")
    await trial.expect_whole()


async def break_a_device(trial: Trial) -> None:
    """An image after which every later call of the device fails: the process starts anew."""
    name, model = await _a_holder(trial)
    (image,) = grey((BREAKS,), 1)
    trial.strike()
    told = ""
    try:
        await trial.pool.workers[name].ask(model, image.encoded, DEADLINE_S)
    except DeviceFailed:
        trial.seconds["failure_told_s"] = trial.now() - trial.struck_s
    except YolopoolError as error:
        told = error.reason
    trial.check("who waits for a device that failed is told so", not told, told or "DEVICE_FAILED")
    await _told(trial, name, "its device failed", "illegal memory access")
    await trial.expect_whole()


async def crash_a_worker(trial: Trial) -> None:
    """SIGSEGV under load: another process takes over, and its last output is shown."""
    name, _ = await _a_holder(trial)
    pid = trial.pool.child(name)
    trial.strike(lambda: os.kill(pid, signal.SIGSEGV))
    await _told(trial, name, "signal SIGSEGV", "Segmentation fault")
    await trial.expect_whole()


async def loop_a_worker(trial: Trial) -> None:
    """SIGSEGV for each process of one worker, three times: a state, and then its end."""
    name, _ = await _a_holder(trial)
    trial.strike()
    killed: set[int] = set()
    for _ in range(3):
        pid = await trial.pool.next_child(name, killed)
        os.kill(pid, signal.SIGSEGV)
        killed.add(pid)

    async def looping() -> str:
        for place, door in trial.pool.control_planes.items():
            one = {worker.id: worker for worker in await door.client.workers()}[name]
            exit = one.last_exit
            if one.state != "CRASH_LOOPING" or exit is None or exit.in_a_row < 3:
                return f"{place}: {name} is {one.state}, {exit}"
            if not (await door.client.fleet()).workers_crash_looping:
                return f"{place}: the fleet has no crash loop"
        return ""

    await trial.expect("a crash loop is a state that all control planes show", looping)
    await trial.expect_whole()


async def poison_an_image(trial: Trial) -> None:
    """An image that crashes its process, among fifteen that do not: two processes die of it, then
    it alone is refused, at every control plane.
    """
    pool = trial.pool
    here, there = pool.control_planes.values()
    classes = len((await here.client.model(MODEL)).versions[0].class_names)
    pictures = grey(trial.rng.sample(list(GREYS), AT_ONCE - 1), classes)
    (poison,) = grey((CRASHES,), classes)
    before = await _exits(trial)
    trial.strike()
    asked = [_outcome(here, MODEL, one) for one in (*pictures[:7], poison, *pictures[7:])]
    outcomes = await asyncio.gather(*asked)
    trial.seconds["poison_found_s"] = trial.now() - trial.struck_s
    found = outcomes.pop(7)
    trial.check("the poison is refused", found == ImageQuarantined.reason, found)
    trial.check("the innocent are answered", set(outcomes) == {"OK"}, _words(outcomes))

    async def refused_there() -> str:
        found = await _outcome(there, MODEL, poison)
        return "" if found == ImageQuarantined.reason else found

    # It hears of it by the store: within moments, and nobody asks it before.
    await asyncio.sleep(0.5)
    await trial.expect("the other control plane refuses it too", refused_there, 0.0)
    died = await _exits(trial) - before
    trial.check("two processes died of it", died == 2, f"{died} died")
    await trial.expect_whole()


async def disconnect_callers(trial: Trial) -> None:
    """Callers who leave at any moment: their places are free at once, others notice nothing."""
    doors, pool = list(trial.pool.control_planes.values()), trial.pool
    (picture,) = grey((60,), 1)
    before = _cancelled(trial)
    trial.strike()

    async def leave(number: int) -> None:
        await asyncio.sleep(trial.rng.uniform(0.0, 1.0))
        call = doors[number % len(doors)].ask(MODEL, picture.encoded, DEADLINE_S)
        try:
            async with asyncio.timeout(trial.rng.uniform(0.002, 0.015)):
                await call
        except (TimeoutError, YolopoolError):
            pass

    await asyncio.gather(*(leave(number) for number in range(LEAVERS)))

    async def free() -> str:
        for name, door in pool.workers.items():
            outstanding = (await door.inventory()).worker.load.outstanding
            if outstanding > trial.callers:
                return f"{name} has {outstanding} tickets of {trial.callers} callers"
        return ""

    await trial.expect("the places of those who left are free", free, 2.0)
    left = _cancelled(trial) - before
    trial.check("workers heard that they left", left > 0, f"{left} of {LEAVERS}")


async def terminate_a_worker(trial: Trial) -> None:
    """SIGTERM for a worker with a full queue: what it has taken it answers."""
    name, model = await _a_holder(trial)
    process, door = trial.pool.processes[name], trial.pool.workers[name]
    outcomes = await _told_to_end(trial, door, model, process.terminate)
    trial.check("what was taken is answered", outcomes["OK"] > 0, _words(outcomes))
    lost = {reason: count for reason, count in outcomes.items() if reason not in _HONEST}
    trial.check("what was not taken hears so", not lost, _words(lost) or "none else")
    await process.ended(DEADLINE_S)
    process.start()
    await trial.expect_whole()


async def terminate_a_control_plane(trial: Trial) -> None:
    """SIGTERM for a control plane with requests in flight: they are answered."""
    name = trial.rng.choice(sorted(trial.pool.control_planes))
    process, door = trial.pool.processes[name], trial.pool.control_planes[name]
    pattern = r'"outcome": "CANCELLED".*"event": "request"'
    before = process.count(pattern)
    outcomes = await _told_to_end(trial, door, MODEL, process.terminate)
    trial.check("what was taken is answered", outcomes["OK"] > 0, _words(outcomes))
    lost = {reason: count for reason, count in outcomes.items() if reason not in _HONEST}
    trial.check("what was not taken hears so", not lost, _words(lost) or "none else")
    await process.ended(DEADLINE_S)
    cut = process.count(pattern) - before
    trial.check("no request was cut off", not cut, f"{cut} were")
    process.start()
    await trial.expect_whole()


# Of a server that ends: refused by itself, or by the transport before it was taken.
_HONEST = frozenset({"OK", "DRAINING", "UNAVAILABLE", "WORKER_LOST"})


async def _told_to_end(
    trial: Trial, door: ControlPlaneDoor | WorkerDoor, model: str, blow: Callable[[], None]
) -> Counter[str]:
    (picture,) = grey((60,), 1)
    asked = [
        asyncio.ensure_future(_outcome(door, model, picture, check=False)) for _ in range(BURST)
    ]
    while not any(one.done() for one in asked):  # noqa: ASYNC110 - the burst is on its way
        await asyncio.sleep(0.002)
    trial.strike(blow)
    return Counter(await asyncio.gather(*asked))


async def _told(trial: Trial, name: str, ended: str, said: str) -> None:
    """Every control plane lists how a process of a worker ended, and what it said."""

    async def shown() -> str:
        for place, door in trial.pool.control_planes.items():
            one = {worker.id: worker for worker in await door.client.workers()}[name]
            exit = one.last_exit
            if exit is None or exit.ended != ended or said not in exit.last_output:
                return f"{place}: {name} is {one.state}, {exit}"
        return ""

    await trial.expect(f"all control planes show how it ended: {ended}", shown)


async def _outcome(
    door: ControlPlaneDoor | WorkerDoor, model: str, picture: Picture, check: bool = True
) -> str:
    try:
        found = await door.ask(model, picture.encoded, DEADLINE_S)
    except YolopoolError as error:
        return error.reason
    return "OK" if not check or picture.is_answered_by(boxes_of(found)) else "wrong boxes"


async def _exits(trial: Trial) -> int:
    """Processes that ended by themselves, as the control plane counts that knows most."""
    counts = [
        await count_of(one, "yolopool_worker_exits_total") for one in trial.pool.http.values()
    ]
    return int(max(counts))


def _cancelled(trial: Trial) -> int:
    pattern = r'"outcome": "CANCELLED".*"event": "infer"'
    return sum(trial.pool.processes[name].count(pattern) for name in trial.pool.workers)


async def _a_holder(trial: Trial) -> tuple[str, str]:
    """A worker with a model that others hold too; if there is one, of whom no process has ended
    lately: its next start is soon.
    """
    door = next(iter(trial.pool.control_planes.values()))
    held = [
        (one, replica.model.partition("@")[0])
        for one in await door.client.workers()
        for replica in one.replicas
        if replica.model.partition("@")[0] in MODELS
    ]
    steady = [(one.id, model) for one, model in held if one.last_exit is None]
    return trial.rng.choice(steady or [(one.id, model) for one, model in held])


def _words(outcomes: Sequence[str] | Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in Counter(outcomes).most_common())


LOOP = Scenario("a crash loop", loop_a_worker, supervised=True)
CRASH = Scenario("a crash under load", crash_a_worker, supervised=True)
HANG = Scenario("a hung device", hang_a_device, supervised=True, simulated=True)
BREAK = Scenario("a device that fails", break_a_device, supervised=True, simulated=True)
LEAVING = Scenario("callers who leave", disconnect_callers, supervised=True)
WORKER_TOLD = Scenario("SIGTERM for a worker under load", terminate_a_worker, supervised=True)
CONTROL_PLANE_TOLD = Scenario(
    "SIGTERM for a control plane under load", terminate_a_control_plane, supervised=True
)
POISON = Scenario("a poison image", poison_an_image, supervised=True, simulated=True)
# The worker that loops is the one whose next start is soon, so it comes first.
EVERY = (LOOP, CRASH, HANG, BREAK, LEAVING, WORKER_TOLD, CONTROL_PLANE_TOLD, POISON)
