"""What is asked for and when: traces with fixed seeds. Pure; numpy alone.

Arrivals are Poisson unless a trace says otherwise; `counted_from` is the first request whose fate
counts, so that every policy has seen something before it is judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.simulation.sizes import MB, SIZES, Model

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
# Of a trace, before anything counts.
WARM_UP = 0.25
# The model of traces whose models are all of one size.
SMALL = SIZES["n"]


@dataclass(frozen=True, slots=True)
class Phase:
    """From request `first` on the models are asked for so often a second each."""

    first: int
    rates: Floats


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests `at` seconds for `models[ids]`; room for `room_bytes` of weights on the devices.

    `phases`: from which request on the models are asked for at which rates, as an oracle knows it.
    `slots`: how many fit, where all are of one size; else 0.
    """

    name: str
    models: tuple[Model, ...]
    ids: Ids
    at: Floats
    room_bytes: int
    slots: int
    phases: tuple[Phase, ...]
    counted_from: int
    seed: int
    # Callers, each with one request under way, instead of arrivals by the clock; 0: open loop.
    callers: int = 0

    @property
    def sizes(self) -> Floats:
        """Bytes of weights of each model."""
        return np.array([model.weights_bytes for model in self.models], np.float64)

    @property
    def is_random(self) -> bool:
        """Whether requests are independent draws with rates that do not change."""
        return self.name.startswith(("zipf", "mix"))

    @property
    def is_spread(self) -> bool:
        """Whether it is for several devices too: each has room for a handful of models."""
        return self.name.startswith("zipf s=1") and self.slots >= 40

    def __len__(self) -> int:
        return len(self.ids)

    def __str__(self) -> str:
        return self.name


def zipf_shares(models: int, exponent: float) -> Floats:
    """Of the requests, the busiest first: proportional to rank^-exponent."""
    shares = np.arange(1, models + 1, dtype=np.float64) ** -exponent
    return np.asarray(shares / shares.sum())


def _trace(
    name: str,
    models: Sequence[Model],
    ids: Ids,
    rate: float,
    room: int,
    seed: int,
    phases: Sequence[tuple[int, Floats]],
) -> Trace:
    """`room`: in models where all are of one size, else in bytes; `phases` in shares."""
    rng = np.random.default_rng(seed + 1_000_000)
    at = np.cumsum(rng.exponential(1 / rate, len(ids)))
    one_size = all(model is SMALL for model in models)
    return Trace(
        name,
        tuple(models),
        ids,
        at,
        room * SMALL.weights_bytes if one_size else room,
        room if one_size else 0,
        tuple(Phase(first, rate * shares) for first, shares in phases),
        int(WARM_UP * len(ids)),
        seed,
    )


def zipf_trace(
    models: Sequence[Model], exponent: float, count: int, rate: float, seed: int
) -> Trace:
    """Zipf's law over any models, for devices of any room."""
    rng = np.random.default_rng(seed)
    shares = rng.permutation(zipf_shares(len(models), exponent))
    ids = rng.choice(len(models), count, p=shares)
    room = sum(model.weights_bytes for model in models)
    return _trace(f"zipf s={exponent:.2g}", models, ids, rate, room, seed, [(0, shares)])


def zipf(models: int, slots: int, exponent: float, count: int, rate: float, seed: int) -> Trace:
    """Independent draws by Zipf's law; ranks are shuffled, so that names say nothing."""
    rng = np.random.default_rng(seed)
    shares = rng.permutation(zipf_shares(models, exponent))
    ids = rng.choice(models, count, p=shares)
    name = f"zipf s={exponent:g} {models}/{slots}"
    return _trace(name, [SMALL] * models, ids, rate, slots, seed, [(0, shares)])


def cyclic(models: int, slots: int, count: int, rate: float, seed: int) -> Trace:
    """One after the other, round and round: where the least recently used is the worst to drop."""
    ids = np.arange(count, dtype=np.int64) % models
    shares = np.full(models, 1 / models)
    name = f"cyclic {models}/{slots}"
    return _trace(name, [SMALL] * models, ids, rate, slots, seed, [(0, shares)])


def day_and_night(models: int, slots: int, count: int, rate: float, seed: int) -> Trace:
    """Two disjoint sets under Zipf's law (s = 1), each asked for a quarter of the trace in turn."""
    rng = np.random.default_rng(seed)
    half = models // 2
    shares = zipf_shares(half, 1.0)
    ids = rng.choice(half, count, p=shares)
    is_night = (np.arange(count) * 4 // count) % 2 == 1
    day, night = np.zeros(models), np.zeros(models)
    day[:half] = night[half : 2 * half] = shares
    phases = [(-(-count * part // 4), night if part % 2 else day) for part in range(4)]
    name = f"day and night {models}/{slots}"
    ids = np.where(is_night, ids + half, ids)
    return _trace(name, [SMALL] * models, ids, rate, slots, seed, phases)


def flash_crowd(models: int, slots: int, count: int, rate: float, seed: int) -> Trace:
    """Zipf (s = 1); from the middle on the rarest model is a third of the traffic."""
    rng = np.random.default_rng(seed)
    shares = zipf_shares(models, 1.0)
    ids = rng.choice(models, count, p=shares)
    begin = count // 2
    crowd = (rng.random(count) < 1 / 3) & (np.arange(count) >= begin)
    after = shares * 2 / 3
    after[-1] += 1 / 3
    name = f"flash crowd {models}/{slots}"
    ids = np.where(crowd, models - 1, ids)
    return _trace(name, [SMALL] * models, ids, rate, slots, seed, [(0, shares), (begin, after)])


def scan(models: int, slots: int, count: int, rate: float, seed: int) -> Trace:
    """Zipf (s = 1); in the middle a batch job asks for every model once, every other request."""
    rng = np.random.default_rng(seed)
    shares = zipf_shares(models, 1.0)
    ids = rng.choice(models, count, p=shares)
    begin, end = count // 2, count // 2 + 2 * models
    ids[begin:end:2] = rng.permutation(models)
    during = shares / 2 + 1 / (2 * models)
    phases = [(0, shares), (begin, during), (end, shares)]
    name = f"scan {models}/{slots}"
    return _trace(name, [SMALL] * models, ids, rate, slots, seed, phases)


def mix(models: int, room_bytes: int, count: int, rate: float, seed: int) -> Trace:
    """Sizes n to x in equal shares, Zipf (s = 1) with sizes independent of rank."""
    rng = np.random.default_rng(seed)
    sizes = [list(SIZES.values())[index] for index in rng.integers(0, len(SIZES), models)]
    shares = rng.permutation(zipf_shares(models, 1.0))
    ids = rng.choice(models, count, p=shares)
    name = f"mix n-x {models}, {room_bytes / 1e9:.2g} GB"
    return _trace(name, sizes, ids, rate, room_bytes, seed, [(0, shares)])


def all_traces(scale: float, seed: int) -> tuple[Trace, ...]:
    """Those of the table, at rates that one device carries; a `scale` below 1 has fewer requests
    and, of the large ones, fewer models: as many requests a model.
    """

    def n(count: int) -> int:
        return int(count * scale)

    many = n(1000)
    room = many // 10
    return (
        zipf(10, 3, 1.0, n(6000), 10.0, seed),
        zipf(many, room, 1.0, n(16000), 20.0, seed + 1),
        zipf(many, room, 0.8, n(12000), 20.0, seed + 2),
        cyclic(10, 3, n(4000), 10.0, seed + 3),
        cyclic(20, 10, n(4000), 10.0, seed + 4),
        day_and_night(40, 8, n(8000), 10.0, seed + 5),
        flash_crowd(100, 10, n(8000), 10.0, seed + 6),
        scan(100, 20, n(8000), 10.0, seed + 7),
        mix(many, int(9.2 * MB * many), n(12000), 5.0, seed + 8),
    )
