"""A log as the causes look at it: its answered requests, and what their passes should have taken.
Pure.
"""

from functools import cached_property

import numpy as np

from yolopool.doctor.passes import groups, quick_ms
from yolopool.doctor.rows import I64, Mask, Numbers, Rows

# Of a device's memory: above, an allocator begins to search and to free. Of its highest clock:
# below, it is low. Threads that want to run, for each core: a host that is not quiet.
NEAR, LOW_CLOCK, BUSY_LOAD = 0.9, 0.85, 1.5
# Threads that decode at a time, from which on requests may wait for one.
DECODING = 1.0
STAGES = (
    "route_ms", "load_wait_ms", "queue_ms", "decode_ms", "preprocess_ms", "inference_ms",
    "postprocess_ms",
)  # fmt: skip


class Looked:
    """`all`: every request; `ok`: those that were answered, which the columns below are of."""

    def __init__(self, rows: Rows) -> None:
        self.all = rows
        self.ok = rows.where(rows.ok & np.isfinite(rows["inference_ms"]))

    @cached_property
    def cold(self) -> Mask:
        return np.nan_to_num(self.ok["cold"]) > 0

    @cached_property
    def quick(self) -> Numbers:
        """What each pass should take, ms: see `passes.quick_ms`."""
        return quick_ms(self.ok, self.cold)

    @cached_property
    def excess(self) -> Numbers:
        """What each pass took beyond that, ms."""
        return np.asarray(np.maximum(0.0, self.ok["inference_ms"] - self.quick))

    @cached_property
    def slowness(self) -> Numbers:
        """How many times longer a pass took than it should."""
        return np.asarray(self.ok["inference_ms"] / np.maximum(self.quick, 0.05))

    @cached_property
    def used(self) -> Numbers:
        """The part of its device's memory that is in use."""
        used, free = self.ok["device_used_bytes"], self.ok["device_free_bytes"]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(used / (used + free))

    @cached_property
    def usual(self) -> Mask:
        """Where the device has room, its clock is high and its host is quiet."""
        clock = np.nan_to_num(self.ok["device_clock_ratio"], nan=1.0)
        load = np.nan_to_num(self.ok["host_load"])
        return np.asarray((clock >= LOW_CLOCK) & ~(self.used >= NEAR) & (load < BUSY_LOAD))

    @cached_property
    def transfer(self) -> Numbers:
        return np.nan_to_num(self.ok["transfer_ms"])

    @cached_property
    def prepared(self) -> Numbers:
        """Decoding and letterbox, ms."""
        both = np.nan_to_num(self.ok["decode_ms"]) + np.nan_to_num(self.ok["preprocess_ms"])
        return np.asarray(np.maximum(0.0, both - self.transfer))

    @cached_property
    def gap(self) -> Numbers:
        """Time that no stage has, ms: waiting for a thread that decodes, and the way."""
        stages = sum(np.nan_to_num(self.ok[name]) for name in STAGES)
        return np.asarray(np.maximum(0.0, self.ok["total_ms"] - stages))

    @cached_property
    def decoding(self) -> Numbers:
        """How many threads decode at a time, on average, at the worker of each row."""
        busy = np.zeros(len(self.ok))
        for index in groups(self.ok.codes["worker"]):
            span_ms = max(1.0, 1000 * float(np.ptp(self.ok.times[index])))
            busy[index] = float((self.prepared * self.ok.requests)[index].sum()) / span_ms
        return busy

    @cached_property
    def waited(self) -> Numbers:
        """Of the time in no stage, what is taken for waiting for a thread that decodes, ms."""
        return np.where(self.decoding >= DECODING, self.gap, 0.0)

    @cached_property
    def active(self) -> Numbers:
        """The total without the queue, ms: what is done for a request, and loads it waits for."""
        return np.asarray(
            np.maximum(0.05, self.ok["total_ms"] - np.nan_to_num(self.ok["queue_ms"]))
        )

    def device(self, index: I64) -> str:
        """The device of rows that have one in common."""
        return self.ok.text("device", int(self.ok.codes["device"][index[0]])) or "the device"

    def worker(self, index: I64) -> str:
        return self.ok.text("worker", int(self.ok.codes["worker"][index[0]])) or "the worker"

    def model(self, index: I64) -> str:
        return self.ok.text("model", int(self.ok.codes["model"][index[0]]))
