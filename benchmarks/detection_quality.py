"""How well a served model finds the labelled shapes: recall and false positives, at the client.

python -m benchmarks.detection_quality
python -m benchmarks.detection_quality --address 127.0.0.1:50051 --model team/shapes@3
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import dataset, hardware, results
from benchmarks.harness.dataset import LabelledImage
from benchmarks.harness.fleet import ready_names
from benchmarks.harness.matching import Detected, Score, match, total
from benchmarks.harness.pool import Pool, PoolFlags, add_flags
from benchmarks.harness.results import Check, Result, Row
from yolopool.client.async_client import AsyncClient


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.detection_quality", description=__doc__)
    add_flags(parser)
    results.add_flags(parser)
    parser.add_argument("--address", default="", help="a running pool (default: starts one)")
    parser.add_argument("--model", default="", help="which one (default: the first that is ready)")
    parser.add_argument("--images", type=Path, default=dataset.FOLDER, help="with a gt.json")
    parser.add_argument("--overlap", type=float, default=0.5, help="least IoU of a match")
    parser.add_argument("--least-recall", type=float, default=0.9, help="demanded")
    parser.add_argument("--timeout", type=float, default=60.0, help="deadline of a request, s")
    return parser


async def score_image(
    client: AsyncClient, image: LabelledImage, model: str, options: argparse.Namespace
) -> Score:
    """Score of one image at the model's own thresholds."""
    answer = await client.detect(image.encoded, model, timeout_s=options.timeout)
    return match(
        image.labels,
        [Detected(one.class_name, one.xyxy, one.confidence) for one in answer],
        options.overlap,
    )


def row_of(name: str, score: Score) -> Row:
    """One score as a flat row."""
    return {
        "image": name,
        "labelled": score.labelled,
        "found": score.found,
        "false_positives": score.false_positives,
        "recall": score.recall,
        "precision": score.precision,
    }


async def run(options: argparse.Namespace) -> Result:
    """Sends every image once, one after the other."""
    machine, started_at = hardware.describe(), results.now()
    images = dataset.load(options.images)
    async with contextlib.AsyncExitStack() as stack:
        address = options.address
        if not address:
            pool_flags = PoolFlags(options.devices, options.memory_budget)
            address = (await stack.enter_async_context(Pool(pool_flags, options.pool_log))).address
        client = await stack.enter_async_context(AsyncClient(address))
        model = options.model or ready_names(await client.models())[0]
        scores = [await score_image(client, image, model, options) for image in images]
    every = total(scores)
    rows = [row_of(image.name, score) for image, score in zip(images, scores, strict=True)]
    detail = f"{every.found} of {every.labelled}, {every.false_positives} false positives"
    return Result(
        scenario="detection_quality",
        started_at=started_at,
        settings=results.settings_of(options) | {"model": model},
        hardware=machine,
        tables={"images": (*rows, row_of("all", every))},
        checks=(
            Check(
                f"recall >= {options.least_recall}", every.recall >= options.least_recall, detail
            ),
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
