"""What no policy can beat on a trace: the least misses, and the least seconds spent on loads.

Pure. `belady`: Belady, "A study of replacement algorithms for a virtual-storage computer" (1966),
exact for equal sizes. `pfoo_lower`: Berger, Beckmann, Harchol-Balter, "Practical Bounds on Optimal
Caching with Variable Object Sizes" (2018). All see the counted part of a trace alone, with what is
held at its beginning chosen as suits them best.
"""

import heapq

import numpy as np

from benchmarks.simulation.traces import Floats, Ids, Trace


def counted(trace: Trace) -> Ids:
    return trace.ids[trace.counted_from :]


def next_uses(ids: Ids) -> Ids:
    """For each request the number of the next for the same model; len(ids): none."""
    found = np.full(len(ids), len(ids), np.int64)
    order = np.argsort(ids, kind="stable")
    same = ids[order][1:] == ids[order][:-1]
    found[order[:-1][same]] = order[1:][same]
    return found


def belady(ids: Ids, slots: int, *, bypass: bool = False) -> int:
    """Least misses with room for so many models of one size; what is asked for last of all leaves.

    A miss has to be loaded, unless `bypass`: then it may be served without being kept.
    """
    later = next_uses(ids).tolist()
    _, first = np.unique(ids, return_index=True)
    begin = np.sort(first)[:slots]
    held = {int(ids[number]): int(number) for number in begin}  # model -> its next use
    farthest = [(-number, id_) for id_, number in held.items()]
    heapq.heapify(farthest)
    misses = 0
    for number, id_ in enumerate(ids.tolist()):
        following = later[number]
        if id_ not in held:
            misses += 1
            if bypass and len(held) >= slots and following >= _farthest(farthest, held):
                continue
            if len(held) >= slots:
                _farthest(farthest, held)
                del held[heapq.heappop(farthest)[1]]
        held[id_] = following
        heapq.heappush(farthest, (-following, id_))
    return misses


def _farthest(heap: list[tuple[int, int]], held: dict[int, int]) -> int:
    """The latest next use of what is held; what the heap knows of older uses is dropped."""
    while held.get(heap[0][1]) != -heap[0][0]:
        heapq.heappop(heap)
    return -heap[0][0]


def pfoo_lower(ids: Ids, sizes: Floats, costs: Floats, room_bytes: float) -> float:
    """Seconds of loads that no policy gets below, models of any sizes, misses kept or not.

    Keeping a model from one request to the next takes size x requests between; all requests
    together have room x requests of that. It goes where it saves most (PFOO-L).
    """
    count = len(ids)
    before = np.full(count, 0, np.int64)  # the first of each is kept from the beginning
    later = next_uses(ids)
    again = later < count
    before[later[again]] = np.flatnonzero(again)
    # One held at the beginning takes its place from the first request on, inclusive of its own.
    first = np.ones(count, np.bool_)
    first[later[again]] = False
    length = np.arange(count) - before + first
    need = sizes[ids] * length
    saves = costs[ids]
    order = np.argsort(-saves / need, kind="stable")
    taken = np.cumsum(need[order])
    whole = taken <= room_bytes * count
    saved = float(saves[order][whole].sum())
    if not whole.all():
        part = int(np.argmin(whole))
        left = room_bytes * count - (taken[part - 1] if part else 0.0)
        saved += float(saves[order][part] * left / need[order][part])
    return float(saves.sum()) - saved


def static_knapsack(ids: Ids, rates: Floats, sizes: Floats, costs: Floats, room: float) -> float:
    """Seconds of loads if what is worth most by known rates is held for ever, the last one in part,
    and the others are served without being kept: for independent arrivals no policy that does not
    see the future expects to spend less (for equal sizes: Aho, Denning, Ullman, "Principles of
    Optimal Page Replacement", 1971; else its relaxation, since the share of time that each is
    held, times its bytes, adds up to the room at most).
    """
    order = np.argsort(-rates * costs / sizes, kind="stable")
    taken = np.cumsum(sizes[order])
    missed = np.empty(len(sizes))
    missed[order] = 1 - np.clip((room - (taken - sizes[order])) / sizes[order], 0.0, 1.0)
    return float((costs * missed)[ids].sum())
