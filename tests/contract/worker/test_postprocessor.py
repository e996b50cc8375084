"""Masks are made for those who wait for them."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from worker.postprocess import results
from worker.postprocess.outputs import Candidates, MaskParts
from worker.postprocess.postprocessor import Postprocessor
from worker.postprocess.results import MaskFormat
from worker.preprocess.letterbox import Letterboxed, Origin
from yolopool.errors import DeadlineExceeded, QueueFull

PLACE = Origin(Letterboxed(np.zeros((64, 64, 3), np.uint8), (64, 64)), (0, 0), (64, 64))


def candidates(boxes: int, side: int = 16) -> Candidates:
    corners = np.tile(np.array([8, 8, 56, 56], np.float32), (boxes, 1))
    parts = MaskParts(np.ones((boxes, 1), np.float32), np.ones((1, side, side), np.float32))
    return Candidates(corners, np.full(boxes, 0.5, np.float32), np.zeros(boxes, np.int64), parts)


async def test_a_passed_deadline_ends_the_masks() -> None:
    postprocessor = Postprocessor(1, 1, clock=lambda: 5.0)
    with pytest.raises(DeadlineExceeded, match="masks"):
        await postprocessor.run(candidates(3), PLACE, MaskFormat.RLE, 4.0)
    found = await postprocessor.run(candidates(3), PLACE, MaskFormat.RLE, 6.0)
    assert len(found.masks or ()) == 3
    postprocessor.close()


async def test_what_waits_for_masks_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By those that were let in before anybody knew their size, too; one alone is always made."""
    go_on = threading.Event()
    monkeypatch.setattr(results, "results_of", lambda *_: go_on.wait(10))
    parts = candidates(1)
    assert isinstance(parts.task_output, MaskParts)
    postprocessor = Postprocessor(1, 8, time.monotonic, parts.task_output.prototypes.nbytes)
    postprocessor.check()
    first = asyncio.ensure_future(postprocessor.run(parts, PLACE, MaskFormat.RLE, float("inf")))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="1 images wait for their masks"):
        postprocessor.check()
    with pytest.raises(QueueFull):
        await postprocessor.run(parts, PLACE, MaskFormat.RLE, float("inf"))
    go_on.set()
    await first
    postprocessor.check()
    await postprocessor.run(candidates(1, 99), PLACE, MaskFormat.RLE, float("inf"))
    postprocessor.check()
    postprocessor.close()


@pytest.mark.parametrize("how", ["left", "closed"])
async def test_masks_end_after_the_one_under_way(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    said: list[bool] = []

    def slow(_: Any, __: Any, ___: Any, stop: Callable[[], bool]) -> None:
        began.set()
        go_on.wait(10)
        said.append(stop())
        ended.set()

    monkeypatch.setattr(results, "results_of", slow)
    postprocessor = Postprocessor(1, 1, time.monotonic)
    call = asyncio.ensure_future(
        postprocessor.run(candidates(1), PLACE, MaskFormat.RLE, float("inf"))
    )
    await asyncio.to_thread(began.wait, 10)
    if how == "left":
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    else:
        postprocessor.close()  # returns while a mask is being made
    go_on.set()
    await asyncio.to_thread(ended.wait, 10)
    assert said == [True]
    await asyncio.gather(call, return_exceptions=True)
    postprocessor.close()
