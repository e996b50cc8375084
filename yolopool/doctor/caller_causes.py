"""What callers send: images larger than models use, the same request again, more than is decoded.
Pure.
"""

from collections.abc import Iterator
from shlex import quote

import numpy as np

from yolopool.doctor.finding import Cause, Finding
from yolopool.doctor.looked import Looked
from yolopool.doctor.passes import groups, mean, median, worst
from yolopool.doctor.rows import Numbers

# An image of so many times the pixels that the model sees; one that is as large as it should be.
TOO_LARGE, ENOUGH = 10.0, 4.0
# The part of the requests that are sent again, and of those the part of one caller.
RETRIED, OF_ONE = 0.08, 0.6


def ratios(looked: Looked) -> Numbers:
    """Pixels that came for each that the model saw."""
    ok = looked.ok
    came = ok["input_width"] * ok["input_height"]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(came / (ok["letterbox_width"] * ok["letterbox_height"]))


def oversized(looked: Looked) -> Iterator[Finding]:
    """Callers whose images take long to decode since they are far larger than the model uses."""
    ok, ratio = looked.ok, ratios(looked)
    for index in groups(ok.codes["principal"]):
        large = index[ratio[index] >= TOO_LARGE]
        if len(large) < 3 or len(large) < 0.1 * len(index):
            continue
        needless = 1 - ENOUGH / np.maximum(ENOUGH, np.nan_to_num(ratio))
        saved = (looked.prepared + looked.waited) * needless
        cost_ms = mean(saved[large])
        share = cost_ms / max(0.05, mean(looked.active[large]))
        if share < 0.15:
            continue
        who = ok.text("principal", int(ok.codes["principal"][index[0]])) or "one caller"
        width, height = median(ok["input_width"][large]), median(ok["input_height"][large])
        seen = median(ok["letterbox_width"][large]), median(ok["letterbox_height"][large])
        side = 2 * max(seen)
        yield Finding(
            Cause.OVERSIZED_IMAGES,
            who,
            f"{who} sends images far larger than the model uses",
            f"images of {width:.0f} x {height:.0f} are decoded for a model that sees "
            f"{seen[0]:.0f} x {seen[1]:.0f}: {mean(looked.prepared[large]):.0f} ms of "
            f"{mean(ok['total_ms'][large]):.0f}",
            (f"have {who} send images of {side:.0f} px on their longer side",),
            cost_ms,
            min(1.0, share),
            len(large),
            worst(ok, large, looked.prepared),
        )


def decode_bound(looked: Looked) -> Iterator[Finding]:
    """Workers whose threads decode for longer than their devices compute."""
    ok, ratio = looked.ok, ratios(looked)
    cost = looked.prepared + looked.waited
    for index in groups(ok.codes["worker"]):
        usual = index[~(ratio[index] >= TOO_LARGE)]
        if len(usual) < 3:
            continue
        prepared, inference = mean(looked.prepared[usual]), mean(ok["inference_ms"][usual])
        computed = inference + mean(looked.transfer[usual])
        share = mean(cost[usual]) / max(0.05, mean(ok["total_ms"][usual]))
        busy = mean(np.nan_to_num(ok["device_utilisation"][usual], nan=0.0))
        waits = mean(looked.waited[usual]) > 0.3 * prepared or prepared > 4 * computed
        if prepared < 1.2 * computed or share < 0.5 or busy > 0.7 or not waits:
            continue
        worker = looked.worker(usual)
        yield Finding(
            Cause.DECODE_BOUND,
            worker,
            f"{worker} decodes for longer than it computes",
            f"decoding and letterbox take {prepared:.1f} ms and a pass {inference:.1f}; the device "
            f"is busy {100 * busy:.0f} %, and requests wait {mean(looked.gap[usual]):.0f} ms for a "
            "thread that decodes",
            (
                f"restart {worker} with --intake-threads {_threads(prepared, inference)}, or with "
                "--io-processes 2 where the device is quicker than one process",
            ),
            mean(cost[usual]),
            min(1.0, share),
            len(usual),
            worst(ok, usual, cost),
        )


def plane_busy(looked: Looked) -> Iterator[Finding]:
    """Requests whose time is in none of their stages, and no thread that decodes is busy."""
    ok = looked.ok
    if len(ok) < 20 or mean(looked.waited) > 0.0:
        return
    cost_ms, total_ms = mean(looked.gap), mean(ok["total_ms"])
    share = cost_ms / max(0.05, total_ms)
    if share < 0.5 or cost_ms < 5:
        return
    span_s = max(0.001, float(np.ptp(looked.all.times)))
    rate = looked.all.requests.sum() / span_s
    yield Finding(
        Cause.CONTROL_PLANE_BUSY,
        "the control plane",
        "requests wait in and before the control plane, or on their way",
        f"{cost_ms:.0f} of {total_ms:.0f} ms are in no stage of a worker, at {rate:.0f} requests a "
        "second; devices and threads that decode have time left",
        (
            "yolopool control-plane --redis URL: a second one, callers spread over both",
            "have callers send to the control plane nearest to them, and smaller images",
        ),
        cost_ms,
        min(1.0, share),
        len(ok),
        worst(ok, np.arange(len(ok)), looked.gap),
    )


def client_retries(looked: Looked) -> Iterator[Finding]:
    """One caller who sends what it sent before."""
    rows, requests = looked.all, looked.all.requests
    again = np.nan_to_num(rows["client_retry"]) > 0
    if requests[again].sum() < RETRIED * requests.sum():
        return
    counts = np.bincount(rows.codes["principal"][again], requests[again])
    code = int(counts.argmax())
    if counts[code] < OF_ONE * counts.sum():
        return
    who = rows.text("principal", code) or "one caller"
    index = np.flatnonzero(again & (rows.codes["principal"] == code))
    of_who = rows.codes["principal"] == code
    cut = requests[of_who & rows.is_text("outcome", "CANCELLED")].sum()
    first = requests[of_who & ~again].sum()
    share = counts[code] / requests.sum()
    cost_ms = share * mean(rows["total_ms"])
    limit = 2 * float(np.nanquantile(rows["total_ms"][rows.ok], 0.99)) if rows.ok.any() else 1000.0
    yield Finding(
        Cause.CLIENT_RETRIES,
        who,
        f"{who} sends requests again before they are answered",
        f"{counts[code]:.0f} of {requests.sum():.0f} requests were sent before ({first:.0f} first "
        f"ones of {who}, {cut:.0f} given up), {100 * share:.0f} % of all work",
        (
            f"have {who} wait longer, at least {limit:.0f} ms, and retry with a growing pause",
            f"yolopool tenants set {quote(_word(who))} --concurrent 4: and give its key to that "
            "tenant",
        ),
        cost_ms,
        min(1.0, 2 * share),
        len(rows),
        worst(rows, index, rows["total_ms"]),
    )


def _threads(prepared_ms: float, inference_ms: float) -> int:
    return int(np.clip(np.ceil(2 * prepared_ms / max(0.5, inference_ms)), 4, 32))


def _word(who: str) -> str:
    return who.rpartition(":")[2] or "NAME"
