"""What a folder and a video cost through the command line, against the pool's own rate.

    python -m benchmarks.folder --images 200 --frames 300 --concurrency 16 --rounds 5

One case after the other. `busy`: a simulated device with a large model, whose passes decide the
rate, as a GPU's do. `idle`: the same with a small one, where this machine's cores decide. `cpu`:
the cores run the model too. In each round the same images are asked by that many clients of this
process, which do nothing else, then by `yolopool detect`: both rates count from the first call to
the last answer. What starting it takes is told beside.
"""

import argparse
import asyncio
import contextlib
import io
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.one_model import SIZE, TIMEOUT_S, started
from benchmarks.harness.pool import COMMAND, PoolFlags
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median
from yolopool.client.async_client import AsyncClient
from yolopool.client.media.outcomes import Video
from yolopool.client.media.sources import sources_of
from yolopool.client.media.video_reader import VideoReader
from yolopool.client.media.video_writer import VideoWriter
from yolopool.client.model_records import Batching

LEAST = 0.95
# Cases, each with its device; of `busy` a pass is one image of the large model: some 65 a second.
BUSY, LARGE = "busy", "yolov8x.yaml"
DEVICES = {BUSY: "sim:1", "idle": "sim:1", "cpu": "cpu"}
RATE = Fraction(25)
_TOLD = re.compile(r"(\d+) (images|frames) in ([\d.]+) s")


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.folder", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--cases", default=",".join(DEVICES), help="one after the other")
    parser.add_argument("--images", type=int, default=200, help="in the folder, 640x480 JPEG")
    parser.add_argument("--frames", type=int, default=300, help="of the video, 640x480")
    parser.add_argument("--concurrency", type=int, default=16, help="calls at a time")
    parser.add_argument("--image-size", type=int, default=320, help="of the model")
    parser.add_argument("--rounds", type=int, default=5, help="of both ways in turns")
    parser.add_argument("--pool-log", type=Path, help="keep the log of the pool's processes here")
    return parser


def write_folder(folder: Path, count: int) -> list[bytes]:
    """Writes the labelled images as a camera would send them; returns their bytes."""
    written = []
    encoded = dataset.encoded()
    for number in range(count):
        path = folder / f"{number:04}.jpg"
        picture = Image.open(io.BytesIO(encoded[number % len(encoded)])).convert("RGB").resize(SIZE)
        picture.save(path, quality=95)
        written.append(path.read_bytes())
    return written


def write_video(path: Path, images: Sequence[bytes], count: int) -> None:
    """A video of the images, each moving to the left for a second."""
    writer = VideoWriter(path, Video("clip", RATE, SIZE, 0, False))
    for number in range(count):
        place, shift = divmod(number, int(RATE))
        picture = Image.open(io.BytesIO(images[place % len(images)])).convert("RGB")
        moved = Image.new("RGB", SIZE)
        moved.paste(picture, (-8 * shift, 0))
        moved.paste(picture, (SIZE[0] - 8 * shift, 0))
        writer.add(moved, number / float(RATE))
    writer.close()


async def pool_rate(address: str, concurrency: int, images: Sequence[Any], **options: Any) -> float:
    """Answers a second with so many callers on a new connection, each waiting for its answer."""
    left = iter(images)
    async with AsyncClient(address) as client:

        async def caller() -> None:
            for image in left:
                await client.detect(image, "shapes", timeout_s=TIMEOUT_S, **options)

        began = time.monotonic()
        await asyncio.gather(*(caller() for _ in range(concurrency)))
        return len(images) / (time.monotonic() - began)


async def command_rate(address: str, *words: str) -> tuple[float, float]:
    """Answers a second as `yolopool detect` tells them, and the seconds of its whole process."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, "detect", *words, "--model", "shapes",
        "--address", address, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, told = await process.communicate()
    found = _TOLD.search(told.decode())
    if process.returncode or found is None:
        raise RuntimeError(f"yolopool detect ended with {process.returncode}: {told.decode()}")
    return int(found[1]) / float(found[3]), time.monotonic() - began


@dataclass(slots=True)
class Measured:
    """The rates of one way to ask, by round."""

    case: str
    what: str
    count: int
    pool: list[float] = field(default_factory=list)
    command: list[float] = field(default_factory=list)
    process_s: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the pool's rate in the same round."""
        rounds = zip(self.command, self.pool, strict=True)
        return median([command / pool for command, pool in rounds])

    def row(self) -> Row:
        seconds = median(self.process_s)
        return {
            "case": self.case,
            "what": self.what,
            "count": self.count,
            "pool_per_s": median(self.pool),
            "command_per_s": median(self.command),
            "share": self.share,
            "process_s": seconds,
            "start_s": seconds - self.count / median(self.command),
        }


async def measure(case: str, options: argparse.Namespace, folder: Path) -> list[Measured]:
    """All rounds on one pool."""
    images = [path.read_bytes() for path in sorted((folder / "photos").iterdir())]
    clip = folder / "clip.mp4"
    reader = VideoReader(sources_of(clip)[0])
    frames = [frame.pixels for frame in reader.frames()]
    reader.close()
    ways = {
        "folder, as jsonl": (folder / "photos", ("--as", "jsonl", "--save", "-")),
        "folder, pictures drawn": (folder / "photos", ("--save", str(folder / "drawn"))),
        "video, as jsonl": (clip, ("--as", "jsonl", "--save", "-")),
        "video, drawn": (clip, ("--save", str(folder / "drawn.mp4"))),
    }
    found = [
        Measured(case, name, len(frames if source == clip else images))
        for name, (source, _) in ways.items()
    ]
    (folder / "drawn").mkdir(exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        model = dataset.DEMO_WEIGHTS
        if case == BUSY:
            model = weights.make(LARGE, 0, folder / "large.pt")
        pool_flags = PoolFlags(devices=DEVICES[case], demo=False)
        pool = await started(stack, pool_flags, options.image_size, options.pool_log, model)
        if case == BUSY:
            async with AsyncClient(pool.address) as client:
                await client.set_batching("shapes", "sim", Batching(max_batch=1))
        for number in range(options.rounds + 1):  # the first warms up
            for one, (source, words) in zip(found, ways.values(), strict=True):
                if source == clip:
                    rate = await pool_rate(
                        pool.address, options.concurrency, frames, channel_order="rgb"
                    )
                else:
                    rate = await pool_rate(pool.address, options.concurrency, images)
                asked = (str(source), *words, "--concurrency", str(options.concurrency))
                command, seconds = await command_rate(pool.address, *asked)
                if number:
                    one.pool.append(rate)
                    one.command.append(command)
                    one.process_s.append(seconds)
    return found


async def run(options: argparse.Namespace) -> Result:
    """Every case, one after the other."""
    machine, started_at = hardware.describe(), results.now()
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        images = write_folder(folder / "photos", options.images)
        write_video(folder / "clip.mp4", images, options.frames)
        for case in options.cases.split(","):
            found += await measure(case, options, folder)
    return Result(
        scenario="folder",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"answers a second": tuple(one.row() for one in found)},
        checks=tuple(checks(found)),
    )


def checks(found: Sequence[Measured]) -> list[Check]:
    """What must hold where the device decides. Elsewhere what the command adds, reading a video and
    drawing, takes cores from the pool itself.
    """
    return [
        Check(
            f"{one.case}: {one.what}, at least {LEAST:.0%} of the pool's rate",
            one.share >= LEAST,
            f"{one.share:.1%} of {median(one.pool):.1f} a second",
        )
        for one in found
        if one.case == BUSY
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
