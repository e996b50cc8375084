"""Every answer checked: many clients, models, sizes and options at once, against the same requests
asked one at a time beforehand.

    python -m benchmarks.mixed --requests 20000

A request's reference is its answer alone, a batch of one. All references differ, so an answer
that went to the wrong caller, or came of another model's weights, is seen.
"""

import argparse
import asyncio
import io
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.pool import Pool, PoolFlags, add_flags
from benchmarks.harness.results import Check, Result, Row
from yolopool import Client
from yolopool.client.detections import Detections
from yolopool.errors import YolopoolError

# In turns of two architectures. Those of one share its skeleton and differ by their weights alone:
# (name, checkpoint, seed of the variation or None for the checkpoint itself, image size).
MODELS = (
    ("shapes", "shapes.pt", None, 160),
    ("v8", "shapes-v8.pt", None, 160),
    ("shapes-one", "shapes.pt", 1, 160),
    ("v8-one", "shapes-v8.pt", 3, 224),
    ("shapes-two", "shapes.pt", 2, 224),
    ("v8-two", "shapes-v8.pt", 4, 192),
)
# Width and height in pixels: letterboxed to different shapes, up as well as down.
SIZES = ((640, 480), (480, 640), (320, 320), (400, 240), (150, 211))
# Largest difference of a coordinate in original pixels, and of a confidence, that is no other
# answer: a pass of several images adds up in another order than one of one.
MOST_PIXELS, MOST_CONFIDENCE = 1e-3, 1e-4
TIMEOUT_S = 60.0
# Neighbours of one model and size in the order of requests, so that batches happen.
RUN = 24


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: `size` is the index of its image's size, `options` are of Client.detect."""

    model: str
    size: int
    image: bytes
    options: dict[str, Any]

    def send(self, client: Client) -> Detections:
        return client.detect(self.image, model=self.model, timeout_s=TIMEOUT_S, **self.options)


@dataclass(slots=True)
class Tally:
    """What one client saw."""

    batches: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    equal: int = 0  # to the bit
    within: int = 0  # of the bounds
    most_pixels: float = 0.0
    most_confidence: float = 0.0
    wrong: list[str] = field(default_factory=list)
    swapped: list[str] = field(default_factory=list)


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.mixed", description=__doc__)
    add_flags(parser)
    results.add_flags(parser)
    parser.add_argument("--requests", type=int, default=20_000, help="checked, of all clients")
    parser.add_argument("--clients", type=int, default=8, help="threads, each with its own client")
    parser.add_argument("--distinct", type=int, default=480, help="different requests among them")
    parser.add_argument("--models", type=int, default=len(MODELS), help="how many of them")
    parser.add_argument("--seed", type=int, default=0, help="of requests and their order")
    return parser


def pictures() -> tuple[tuple[bytes, ...], ...]:
    """The labelled images as JPEG: by size, then by image."""
    originals = [Image.open(io.BytesIO(encoded)).convert("RGB") for encoded in dataset.encoded()]
    return tuple(tuple(_jpeg(one.resize(size)) for one in originals) for size in SIZES)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def draw(rng: random.Random, images: Sequence[Sequence[bytes]], models: int) -> Ask:
    """One request to one of the first `models`, with options of its own; a third has a region of
    interest.
    """
    size = rng.randrange(len(SIZES))
    width, height = SIZES[size]
    options: dict[str, Any] = {
        "confidence": round(rng.uniform(0.05, 0.5), 3),
        "iou": round(rng.uniform(0.3, 0.9), 3),
        "max_detections": rng.choice((1, 3, 100, 300)),
        "agnostic_nms": rng.random() < 0.5,
    }
    if rng.random() < 0.3:
        options["classes"] = rng.sample(range(3), 2)
    if rng.random() < 0.3:
        # Halves and quarters: of few shapes, so that these too meet in a batch.
        x, y = rng.choice((0, width // 4)), rng.choice((0, height // 4))
        options["region_of_interest"] = (x, y, x + 3 * width // 4, y + 3 * height // 4)
    return Ask(rng.choice(MODELS[:models])[0], size, rng.choice(images[size]), options)


def reference(
    client: Client, rng: random.Random, count: int, models: int
) -> tuple[dict[bytes, Ask], list[tuple[Ask, Detections]]]:
    """`count` requests with their answers, asked one at a time; all with boxes, all different.

    Raises RuntimeError where the models do not give so many different answers.
    """
    images, owners = pictures(), dict[bytes, Ask]()
    known: list[tuple[Ask, Detections]] = []
    for _ in range(20 * count):
        ask = draw(rng, images, models)
        answer = ask.send(client)
        if answer.batch_size != 1:
            raise RuntimeError(f"a request alone was run with {answer.batch_size - 1} others")
        if len(answer) and owners.setdefault(key_of(answer), ask) is ask:
            known.append((ask, answer))
            if len(known) == count:
                return owners, known
    raise RuntimeError(f"only {len(known)} different answers: ask for fewer with --distinct")


def key_of(answer: Detections) -> bytes:
    """Two answers with the same boxes have the same, to a hundredth of a pixel."""
    return np.round(answer.xyxy, 2).tobytes() + answer.class_id.tobytes()


def order(
    rng: random.Random, known: Sequence[tuple[Ask, Detections]], count: int
) -> Iterator[tuple[Ask, Detections]]:
    """`count` requests: runs of one model and size of image, in turns with any at all."""
    groups: dict[tuple[str, int], list[tuple[Ask, Detections]]] = {}
    for one in known:
        groups.setdefault((one[0].model, one[0].size), []).append(one)
    lanes = list(groups.values())
    for number in range(count):
        if number % RUN == 0:
            lane = rng.choice(lanes) if number // RUN % 3 else list(known)
        yield rng.choice(lane)


class Share:
    """One order of requests for all threads: each takes the next."""

    def __init__(self, asks: Iterator[tuple[Ask, Detections]]) -> None:
        self._asks = asks
        self._lock = threading.Lock()

    def __iter__(self) -> "Share":
        return self

    def __next__(self) -> tuple[Ask, Detections]:
        with self._lock:
            return next(self._asks)


def ask_all(address: str, share: Share, owners: dict[bytes, Ask], tally: Tally) -> None:
    """One client until nothing is left."""
    with Client(address) as client:
        for ask, expected in share:
            try:
                answer = ask.send(client)
            except YolopoolError as error:
                tally.errors[error.reason] += 1
                continue
            tally.batches[answer.batch_size] += 1
            compare(ask, expected, answer, owners, tally)


def compare(
    ask: Ask, expected: Detections, answer: Detections, owners: dict[bytes, Ask], tally: Tally
) -> None:
    """Notes whether an answer is the one that is right."""
    same = answer.model == expected.model and answer.image_size == expected.image_size
    if not same or not np.array_equal(answer.class_id, expected.class_id):
        owner = owners.get(key_of(answer))
        seen = f"{ask.model} {ask.options}: {answer} in place of {expected}"
        (tally.wrong if owner is None else tally.swapped).append(seen)
        return
    pixels = float(np.abs(answer.xyxy - expected.xyxy).max())
    confidence = float(np.abs(answer.confidence - expected.confidence).max())
    tally.most_pixels = max(tally.most_pixels, pixels)
    tally.most_confidence = max(tally.most_confidence, confidence)
    if pixels == 0 and confidence == 0:
        tally.equal += 1
    elif pixels <= MOST_PIXELS and confidence <= MOST_CONFIDENCE:
        tally.within += 1
    else:
        owner = owners.get(key_of(answer))
        seen = f"{ask.model} {ask.options}: off by {pixels:.3g} px and {confidence:.3g}"
        (tally.wrong if owner in (None, ask) else tally.swapped).append(seen)


def measure(
    address: str, options: argparse.Namespace, folder: Path, workers: int
) -> tuple[list[Tally], float]:
    """Registers the models, takes the references, lets all clients go; answers the seconds too."""
    rng = random.Random(options.seed)
    with Client(address) as client:
        for name, file, seed, size in MODELS[: options.models]:
            source = dataset.DEMO_WEIGHTS.parent / file
            path = source if seed is None else weights.vary(source, seed, folder / f"{name}.pt")
            version = client.register(name, path, image_size=size)
            if version.state != "READY":
                raise RuntimeError(f"{name} is {version.state}: {version.reason} {version.message}")
            client.load(name, replicas=workers, pin=True)
        owners, known = reference(client, rng, options.distinct, options.models)
    share = Share(order(rng, known, options.requests))
    tallies = [Tally() for _ in range(options.clients)]
    threads = [
        threading.Thread(target=ask_all, args=(address, share, owners, tally), name="client")
        for tally in tallies
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tallies, time.monotonic() - began


async def run(options: argparse.Namespace) -> Result:
    """Starts a pool, asks, compares, stops it."""
    machine, started_at = hardware.describe(), results.now()
    pool_flags = PoolFlags(options.devices, options.memory_budget, demo=False)
    with tempfile.TemporaryDirectory(prefix="yolopool-") as folder:
        async with Pool(pool_flags, options.pool_log) as pool:
            # Blocking clients, as most callers are: beside the loop.
            tallies, seconds = await asyncio.to_thread(
                measure, pool.address, options, Path(folder), pool_flags.expected_workers
            )
    batches: Counter[int] = sum((one.batches for one in tallies), Counter())
    errors: Counter[str] = sum((one.errors for one in tallies), Counter())
    checked = batches.total()
    row: Row = {
        "clients": options.clients,
        "models": options.models,
        "checked": checked,
        "requests_per_s": checked / seconds,
        "equal_to_the_bit": sum(one.equal for one in tallies),
        "within_bounds": sum(one.within for one in tallies),
        "most_pixels": max(one.most_pixels for one in tallies),
        "most_confidence": max(one.most_confidence for one in tallies),
    }
    return Result(
        scenario="mixed",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={
            "answers": (row,),
            "batches": tuple(
                {"images_a_pass": size, "answers": batches[size]} for size in sorted(batches)
            ),
        },
        checks=verdicts(tallies, batches, errors, options.requests),
    )


def verdicts(
    tallies: Sequence[Tally], batches: Counter[int], errors: Counter[str], requests: int
) -> tuple[Check, ...]:
    """What must hold."""
    wrong = [seen for one in tallies for seen in one.wrong]
    swapped = [seen for one in tallies for seen in one.swapped]
    shared = sum(count for size, count in batches.items() if size > 1)
    return (
        Check("every request was answered", batches.total() == requests, str(dict(errors) or "")),
        Check("no answer is wrong", not wrong, f"{len(wrong)} wrong: {wrong[:3]}"),
        Check("no answer is another's", not swapped, f"{len(swapped)} swapped: {swapped[:3]}"),
        Check(
            "a tenth of the answers or more shared their pass",
            shared >= batches.total() / 10,
            f"{shared} of {batches.total()}",
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
