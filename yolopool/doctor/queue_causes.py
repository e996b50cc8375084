"""Requests that wait for the device, and passes that are too large or too small. Pure."""

from collections.abc import Iterator
from shlex import quote

import numpy as np

from yolopool.doctor.finding import Cause, Finding
from yolopool.doctor.looked import Looked
from yolopool.doctor.passes import groups, keyed, mean, median, worst
from yolopool.doctor.rows import I64, Numbers

BUSY = 0.8
# A queue is one if requests wait longer in it than for two passes.
PASSES = 2.0
# Doubling a pass is worth while if it takes so much less for an image.
WORTH = 0.2
LATE = ("DEADLINE_EXCEEDED", "DEADLINE_UNMEETABLE")
MAX_BATCH = 32


def queues(looked: Looked) -> Iterator[Finding]:
    """Devices that are asked for more than they can: by more images a pass, or not at all."""
    ok = looked.ok
    queued = np.nan_to_num(ok["queue_ms"])
    for index in groups(keyed(ok.codes["device"], ok.codes["worker"])):
        inference = ok["inference_ms"][index]
        busy = median(np.nan_to_num(ok["device_utilisation"][index], nan=1.0))
        wait = mean(queued[index])
        if len(index) < 20 or wait < PASSES * mean(inference) or busy < BUSY:
            continue
        batch = ok["batch_size"][index]
        usual = float(np.nanquantile(batch, 0.9))
        fixed, image = curve(looked, index)
        rate = 1000 * mean(batch) / max(0.01, mean(inference))
        device, model = looked.device(index), _most(looked, index)
        kind = device.partition(":")[0]
        larger = int(min(MAX_BATCH, max(2.0, 4 * usual)))
        gain = 1 - (fixed / larger + image) / max(0.01, fixed / usual + image)
        length = mean(ok["queue_length"][index])
        said = (
            f"{wait:.0f} ms in the queue against {mean(inference):.0f} ms in a pass; "
            f"{length:.0f} requests wait, {usual:.0f} images share a pass, the device is busy "
            f"{100 * busy:.0f} % and runs {rate:.0f} images a second"
        )
        deep = length >= 3 * usual
        if deep and usual < MAX_BATCH and (usual <= 2 or gain >= 2 * WORTH):
            yield Finding(
                Cause.BATCHES_TOO_SMALL,
                f"{model} on {device}",
                f"passes on {device} are small beside a deep queue",
                said,
                (
                    f"yolopool models batching {quote(model)} --device {quote(kind)} "
                    f"--max-batch {larger}",
                ),
                *_cost(looked, index, queued),
            )
            continue
        yield Finding(
            Cause.OVER_CAPACITY,
            f"{model} on {device}",
            f"{device} is asked for more than it can",
            said,
            (
                f"yolopool models load {quote(model)} --replicas {_replicas(looked, index)}",
                f"yolopool models build {quote(model)} --images FOLDER: a quicker build",
            ),
            *_cost(looked, index, queued),
        )


def large_batches(looked: Looked) -> Iterator[Finding]:
    """Passes so large that requests run out of time in them."""
    rows, ok = looked.all, looked.ok
    requests = rows.requests
    late_rows = np.zeros(len(rows), bool)
    for reason in LATE:
        late_rows |= rows.is_text("outcome", reason)
    for index in groups(ok.codes["model"]):
        code = ok.codes["model"][index[0]]
        deadline = median(ok["deadline_ms"][index])
        inference, batch = ok["inference_ms"][index], ok["batch_size"][index]
        large = index[batch >= max(4.0, float(np.nanquantile(batch, 0.75)))]
        late = int(requests[late_rows & (rows.codes["model"] == code)].sum())
        is_late = late >= 0.005 * ok.requests[index].sum() or bool(
            (ok["total_ms"][index] > 0.9 * deadline).mean() > 0.02
        )
        if not len(large) or not deadline or not is_late:
            continue
        took = float(np.nanquantile(inference, 0.9))
        wait = mean(np.nan_to_num(ok["queue_ms"][index]))
        fixed, image = curve(looked, index)
        if took < 0.35 * deadline or wait > PASSES * mean(inference) or image <= 0:
            continue
        best = max(1, int((0.25 * deadline - fixed) / image))
        cost = np.maximum(0.0, ok["inference_ms"] - (fixed + image * best))
        model = looked.model(index).partition("@")[0]
        kind = looked.device(index).partition(":")[0]
        yield Finding(
            Cause.BATCHES_TOO_LARGE,
            model,
            f"passes of {model} are too large for its deadlines",
            f"passes of {median(ok['batch_size'][large]):.0f} images take {took:.0f} ms of the "
            f"{deadline:.0f} ms that callers allow; {late} requests were late",
            (f"yolopool models batching {quote(model)} --device {quote(kind)} --max-batch {best}",),
            *_cost(looked, index, cost),
        )


def curve(looked: Looked, index: I64) -> tuple[float, float]:
    """Milliseconds of a pass, and of each image in it: a line through what passes of each size
    take. With one size only, half of a pass is taken for fixed.
    """
    batch, quick = looked.ok["batch_size"][index], looked.quick[index]
    known = np.isfinite(batch) & np.isfinite(quick)
    sizes = np.unique(batch[known])
    if len(sizes) < 2:
        took = median(quick)
        size = float(sizes[0]) if len(sizes) else 1.0
        return took / 2, took / 2 / size
    took_by_size = [median(quick[known & (batch == size)]) for size in sizes]
    image, fixed = np.polyfit(sizes, took_by_size, 1)
    return max(0.0, float(fixed)), max(0.0, float(image))


def _most(looked: Looked, index: I64) -> str:
    """The model with the most time of these passes."""
    codes = looked.ok.codes["model"][index]
    times = np.bincount(codes, weights=np.nan_to_num(looked.ok["inference_ms"][index]))
    return looked.ok.text("model", int(times.argmax())).partition("@")[0]


def _replicas(looked: Looked, index: I64) -> int:
    """As many as the requests that arrive need, at half again what passes take."""
    ok = looked.ok
    span_s = max(0.001, float(ok.times[index].max() - ok.times[index].min()))
    devices = len(np.unique(ok.codes["device"]))
    asked = looked.all.requests.sum() / devices / span_s
    can = 1000 * mean(ok["batch_size"][index]) / max(0.01, mean(ok["inference_ms"][index]))
    return max(devices + 1, int(np.ceil(devices * 1.3 * asked / max(0.01, can))))


def _cost(looked: Looked, index: I64, cost: Numbers) -> tuple[float, float, int, tuple[int, ...]]:
    cost_ms = mean(cost[index])
    share = cost_ms / max(0.05, mean(looked.ok["total_ms"][index]))
    return cost_ms, min(1.0, share), len(index), worst(looked.ok, index, cost)
