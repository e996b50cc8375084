"""Requests that wait for a model, or are its first. Pure."""

from collections.abc import Iterator
from shlex import quote

import numpy as np

from yolopool.doctor.finding import Cause, Finding
from yolopool.doctor.looked import Looked
from yolopool.doctor.passes import groups, mean, worst

# Loads of one model in a log, at least, before it counts as loaded again and again.
EPISODES = 3
# A pass that is the first of its kind is slow if it takes so many times longer than later ones.
COLD_TIMES = 3.0


def reload_thrash(looked: Looked) -> Iterator[Finding]:
    """Models that are loaded again and again: more are asked for than fit."""
    ok = looked.ok
    waited = np.nan_to_num(ok["load_wait_ms"])
    missed = (np.nan_to_num(ok["hit"], nan=1.0) == 0) & (waited > 0)
    again: dict[str, int] = {}
    for index in groups(ok.codes["model"]):
        if (loads := _episodes(ok.times[index][missed[index]], waited[index][missed[index]])) > 1:
            again[looked.model(index)] = loads
    loads = sum(again.values())
    if loads < EPISODES or loads < 2 * len(again):
        return
    index = np.flatnonzero(missed)
    cost_ms = mean(waited)
    workers = len(np.unique(ok.codes["worker"]))
    worst_model = max(again, key=lambda name: again[name])
    yield Finding(
        Cause.RELOAD_THRASH,
        worst_model.partition("@")[0],
        f"{len(again)} models take turns in memory that does not hold them all",
        f"{loads} loads of {len(again)} models, the most of {worst_model} ({again[worst_model]}); "
        f"{100 * len(index) / len(ok):.0f} % of the requests waited {mean(waited[index]):.0f} ms "
        f"for one, on {workers} worker{'s' if workers > 1 else ''}",
        (
            f"yolopool models load {quote(worst_model)} --pin",
            "yolopool workers list: raise --memory-budget, or add a worker; yolopool models build "
            "makes smaller builds",
        ),
        cost_ms,
        min(1.0, cost_ms / max(0.05, mean(looked.active))),
        len(ok),
        worst(ok, index, waited),
    )


def _episodes(times: np.ndarray, waited: np.ndarray) -> int:
    """How many loads requests waited for: those of one load were sent while it ran."""
    loads, ready = 0, -np.inf
    # A line is written when its request ends: the load had ended by then, and began before.
    order = np.argsort(times)
    for end, wait_ms in zip(times[order], waited[order], strict=True):
        if end - wait_ms / 1000 > ready:
            loads, ready = loads + 1, float(end)
    return loads


def cold_first(looked: Looked) -> Iterator[Finding]:
    """First passes that take much longer, and first requests that wait for a load."""
    ok = looked.ok
    waited = np.nan_to_num(ok["load_wait_ms"])
    slow = looked.cold & looked.usual & (looked.slowness >= COLD_TIMES) & (looked.excess > 20)
    first = slow | ((np.nan_to_num(ok["hit"], nan=1.0) == 0) & (waited > 0))
    cost = np.where(slow, looked.excess, 0.0) + waited
    for index in groups(ok.codes["model"]):
        cold = index[first[index]]
        if not len(cold) or not slow[index].any():
            continue
        # Those that came meanwhile waited behind them.
        behind = np.zeros(len(index), bool)
        ends = ok.times[index]
        for end, cost_s in zip(ok.times[cold], cost[cold] / 1000, strict=True):
            behind |= (ends >= end - 0.05) & (ends <= end + cost_s)
        queued = np.where(behind, np.nan_to_num(ok["queue_ms"][index]), 0.0)
        cost_ms = mean(cost[index]) + mean(queued)
        model = looked.model(index)
        share = cost_ms / max(0.05, mean(looked.active[index] + queued))
        yield Finding(
            Cause.COLD_FIRST_REQUESTS,
            model.partition("@")[0],
            f"the first requests of {model} are slow",
            f"{len(cold)} of {len(index)} requests were the first of their kind and took "
            f"{mean(cost[cold]):.0f} ms more than later ones",
            (
                f"yolopool models load {quote(model)} --pin",
                f"yolopool models batching {quote(model.partition('@')[0])} --device "
                f"{quote(looked.device(index).partition(':')[0])} --prefer 1,4,8",
            ),
            cost_ms,
            min(1.0, share),
            len(index),
            worst(ok, cold, cost),
        )
