"""What makes passes slow: memory, clocks, neighbours, one device among equals, the way to it.
Pure.
"""

from collections.abc import Iterator
from shlex import quote

import numpy as np

from yolopool.doctor.finding import Cause, Finding
from yolopool.doctor.looked import BUSY_LOAD, LOW_CLOCK, NEAR, Looked
from yolopool.doctor.passes import groups, keyed, kind_of, kinds, mean, median, worst
from yolopool.doctor.rows import I64, THROTTLED, Mask, Numbers

# Of a device's memory: below, passes have room.
ROOMY = 0.85
# A pass is slow if it takes so many times longer than it should.
SLOW = 1.25
# Threads that want to run, for each core, of a host that is quiet.
QUIET_LOAD = 1.2
LESS_ROOM = 0.75


def memory_pressure(looked: Looked) -> Iterator[Finding]:
    """Passes that take longer since memory is near its end, or that ran out of it."""
    ok, used = looked.ok, looked.used
    retried = np.nan_to_num(ok["memory_retries"]) > 0
    for index in groups(keyed(ok.codes["device"], ok.codes["worker"])):
        near = index[(used[index] >= NEAR) | retried[index]]
        near = near[~looked.cold[near]]
        roomy = index[(used[index] < ROOMY) & ~looked.cold[index] & ~retried[index]]
        if not len(near):
            continue
        times = slower(looked, near, roomy)
        # All rows together may be slow, or only those with the least memory.
        last = near[np.argsort(used[near])[len(near) // 2 :]]
        times = max(times, slower(looked, last, roomy))
        tries = int(retried[near].sum())
        if (times < SLOW or not len(roomy)) and not (tries > 2 and times >= SLOW):
            continue
        device = looked.device(index)
        free = median(ok["device_free_bytes"][last]) / 2**20
        yield _finding(
            looked,
            Cause.MEMORY_PRESSURE,
            device,
            near,
            looked.excess,
            f"passes on {device} slow down as its memory fills",
            f"with {100 * median(used[last]):.0f} % of its memory in use ({free:.0f} MiB free) a "
            f"pass takes {times:.1f} x as long as with room: "
            f"{median(ok['inference_ms'][last]):.0f} ms against "
            f"{median(ok['inference_ms'][roomy if len(roomy) else near]):.0f}"
            + (f"; {tries} passes ran out of memory and were run again" if tries else ""),
            (
                f"yolopool worker --device {quote(device)} --memory-budget {LESS_ROOM}",
                f"yolopool workers drain {quote(looked.worker(index))}: a fresh process for what "
                "leaked",
            ),
        )


def throttled(looked: Looked) -> Iterator[Finding]:
    """Clocks that are low, since the device is hot or has no more power."""
    ok = looked.ok
    clock = ok["device_clock_ratio"]
    for index in groups(ok.codes["device"]):
        low = index[clock[index] < LOW_CLOCK]
        high = index[clock[index] >= LOW_CLOCK]
        busy = low[np.nan_to_num(ok["device_utilisation"][low], nan=1.0) > 0.05]
        if not len(busy):
            continue
        # A GPU with nothing to do lowers its clock: only passes that are slower by it count.
        expected = 1 / max(0.05, median(clock[busy]))
        times = slower(looked, busy, high)
        if times < max(1.15, 0.6 * expected) and len(high):
            continue
        # One that never has its highest clock may be as it should: unless it says why.
        if not len(high) and not (ok[THROTTLED][busy] > 0).any():
            continue
        device = looked.device(index)
        cost = looked.ok["inference_ms"] * (1 - np.nan_to_num(clock, nan=1.0))
        yield _finding(
            looked,
            Cause.THROTTLED,
            device,
            busy,
            cost,
            f"the clock of {device} is low",
            f"at {100 * median(clock[busy]):.0f} % of its highest clock a pass takes "
            f"{median(ok['inference_ms'][busy]):.1f} ms"
            + (f", {times:.1f} x as long as at a high one" if len(high) else ""),
            (
                "nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER",
                "cool the machine or raise its power limit: nvidia-smi -pl WATTS",
            ),
        )


def noisy_host(looked: Looked) -> Iterator[Finding]:
    """Others who use the processors of a worker's host."""
    ok = looked.ok
    load = ok["host_load"]
    work = looked.prepared + np.where(_of_cpu(looked), looked.excess, 0.0)
    for index in groups(ok.codes["worker"]):
        quiet = index[load[index] <= QUIET_LOAD]
        busy = index[load[index] >= BUSY_LOAD]
        if len(quiet) < 3 or len(busy) < 3:
            continue
        # Its own passes load the host too: then passes are not slower for it.
        prepared = median(looked.prepared[busy]) / max(0.01, median(looked.prepared[quiet]))
        passes = slower(looked, busy, quiet)
        of_cpu = bool(_of_cpu(looked)[index[0]])
        if prepared < SLOW or (of_cpu and passes < SLOW):
            continue
        worker = looked.worker(index)
        cost = np.maximum(0.0, work - median(work[quiet]))
        yield _finding(
            looked,
            Cause.NOISY_HOST,
            worker,
            busy,
            cost,
            f"others use the processors of {worker}'s host",
            f"with {median(load[busy]):.1f} threads for each core (quiet: "
            f"{median(load[quiet]):.1f}) decoding takes {prepared:.1f} x and a pass "
            f"{passes:.1f} x as long",
            (
                f"find them with top on the host of {worker}, and move them or give the worker "
                "cores of its own: "
                + ("yolopool worker --devices cpu:0-7" if of_cpu else "taskset -c 0-7"),
            ),
        )


def slow_device(looked: Looked) -> Iterator[Finding]:
    """One device that takes longer for the same passes than others of its kind."""
    ok = looked.ok
    usual = looked.usual & ~looked.cold
    kind = kinds(ok)
    for of_kind in groups(kind):
        by_device = [one for one in groups(ok.codes["device"][of_kind])]
        if len(by_device) < 2:
            continue
        for one in by_device:
            index = of_kind[one]
            index = index[usual[index]]
            others = of_kind[usual[of_kind]]
            others = others[ok.codes["device"][others] != ok.codes["device"][of_kind[one[0]]]]
            if len(index) < 10 or len(others) < 10:
                continue
            times = slower(looked, index, others)
            if times < 1.4:
                continue
            device = looked.device(index)
            yield _finding(
                looked,
                Cause.SLOW_DEVICE,
                device,
                index,
                looked.excess,
                f"{device} is slower than others of its kind",
                f"the same passes take {times:.1f} x as long as on "
                f"{looked.device(others)}: {median(ok['inference_ms'][index]):.1f} ms against "
                f"{median(ok['inference_ms'][others]):.1f}",
                (
                    f"yolopool workers drain {quote(looked.worker(index))}",
                    "nvidia-smi -q: look for ECC errors, PCIe width, another process"
                    if kind_of(device) == "cuda"
                    else "look for others on its host with top, and for fewer or older cores",
                ),
            )


def transfer_bound(looked: Looked) -> Iterator[Finding]:
    """Images that take as long to the device as passes take on it."""
    ok = looked.ok
    for index in groups(ok.codes["device"]):
        transfer, inference = mean(looked.transfer[index]), mean(ok["inference_ms"][index])
        if transfer < 1.0 or transfer < 0.6 * inference:
            continue
        device = looked.device(index)
        pixels = mean((ok["letterbox_width"] * ok["letterbox_height"])[index])
        rate = 3 * pixels * mean(ok["batch_size"][index]) / transfer / 1e6
        yield _finding(
            looked,
            Cause.TRANSFER_BOUND,
            device,
            index,
            looked.transfer,
            f"images wait for the way to {device}",
            f"a pass's images take {transfer:.1f} ms to the device ({rate:.2f} GB/s) and "
            f"{inference:.1f} ms on it",
            (
                "nvidia-smi -q -d PCIE: look at link width and generation",
                "nvidia-smi topo -m: give the worker cores beside its device",
            ),
        )


def slower(looked: Looked, some: I64, others: I64) -> float:
    """How many times longer some passes take than others, each against what it should."""
    return median(looked.slowness[some]) / (median(looked.slowness[others]) or 1.0)


def _of_cpu(looked: Looked) -> Mask:
    of_cpu = [text.startswith("cpu") for text in looked.ok.texts["device"]]
    return np.array(of_cpu, bool)[looked.ok.codes["device"]]


def _finding(
    looked: Looked,
    cause: Cause,
    about: str,
    index: I64,
    cost: Numbers,
    title: str,
    evidence: str,
    change: tuple[str, ...],
) -> Finding:
    cost_ms = mean(cost[index])
    share = cost_ms / max(0.05, mean(looked.active[index]))
    places = worst(looked.ok, index, cost)
    return Finding(
        cause, about, title, evidence, change, cost_ms, min(1.0, share), len(index), places
    )
