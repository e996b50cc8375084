"""The intake with its real threads: what it prepares, refuses, and gives back."""

import asyncio
import threading
from collections.abc import AsyncIterator

import cv2
import numpy as np
import pytest

from worker import arena, imaging
from worker.arena import Arena
from worker.imaging import ChannelOrder, ImageLimits, ShapePolicy
from worker.intake import Framing, Intake, RawPixels
from yolopool.errors import Draining, ImageNotDecodable, ImageTooLarge, InvalidOption, QueueFull

LIMITS = ImageLimits(max_bytes=1_000_000, max_pixels=1_000_000)
FRAMING = Framing(image_size=64, stride=32, policy=ShapePolicy.RECT)
PIXELS = np.random.default_rng(3).integers(0, 256, (60, 90, 3), np.uint8)
PNG = cv2.imencode(".png", PIXELS)[1].tobytes()


def small(slots: int = 80) -> Arena:
    """Room for so many images of FRAMING."""
    return Arena(arena.private(slots * FRAMING.most_bytes))


class Gate:
    """A clock that stands still, and with it the thread that reads it, until opened."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self) -> float:
        self.reached.release()
        self.opened.wait()
        return 0.0


@pytest.fixture
async def intake() -> AsyncIterator[Intake]:
    made = Intake(threads=2, capacity=4, limits=LIMITS, arena=small())
    yield made
    made.close()


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


async def test_prepares_encoded_and_raw_images_alike(intake: Intake) -> None:
    raw = RawPixels(PIXELS.tobytes(), 60, 90, ChannelOrder.BGR)
    expected = imaging.letterbox(PIXELS, 64, 32, ShapePolicy.RECT)
    for source in (PNG, raw):
        prepared = await intake.prepare(source, None, FRAMING)
        np.testing.assert_array_equal(prepared.letterboxed.image, expected.image)
        assert prepared.letterboxed.original_shape == prepared.image_shape == (60, 90)
        assert prepared.offset == (0, 0)
        assert prepared.decode_s > 0
        assert prepared.preprocess_s > 0


async def test_prepares_only_the_region(intake: Intake) -> None:
    prepared = await intake.prepare(PNG, (10.5, 20, 50, 60), FRAMING)
    expected = imaging.letterbox(PIXELS[20:60, 10:50].copy(), 64, 32, ShapePolicy.RECT)
    np.testing.assert_array_equal(prepared.letterboxed.image, expected.image)
    assert prepared.offset == (10, 20)
    assert prepared.image_shape == (60, 90)
    assert prepared.letterboxed.original_shape == (40, 40)


async def test_errors_come_through_and_give_their_place_back(intake: Intake) -> None:
    for _ in range(9):
        with pytest.raises(ImageNotDecodable):
            await intake.prepare(PNG[:-40], None, FRAMING)
        with pytest.raises(InvalidOption):
            await intake.prepare(PNG, (0, 0, 91, 60), FRAMING)
        with pytest.raises(ImageTooLarge):
            await intake.prepare(bytes(1_000_001), None, FRAMING)


async def test_a_slot_is_lent_as_long_as_a_view_of_it_is_held() -> None:
    intake = Intake(threads=1, capacity=9, limits=LIMITS, arena=small(2))
    first = (await intake.prepare(PNG, None, FRAMING)).letterboxed.image
    pixels, part = first.copy(), first[3:5, 7:]
    held = [await intake.prepare(PNG, None, FRAMING)]
    del first
    with pytest.raises(QueueFull, match="2 images fill the memory"):
        await intake.prepare(PNG, None, FRAMING)
    np.testing.assert_array_equal(part, pixels[3:5, 7:])
    del part
    held.append(await intake.prepare(PNG[:-40] + PNG[-40:], (10, 10, 60, 60), FRAMING))
    held.clear()
    for _ in range(9):  # a failure keeps none
        with pytest.raises(ImageNotDecodable):
            await intake.prepare(PNG[:-40], None, FRAMING)
    with pytest.raises(ImageTooLarge, match="--intake-memory"):
        await intake.prepare(PNG, None, Framing(640, 32, ShapePolicy.RECT))
    intake.close()


async def test_refuses_at_once_when_full(gate: Gate) -> None:
    intake = Intake(threads=1, capacity=2, limits=LIMITS, arena=small(), clock=gate)
    held = [asyncio.create_task(intake.prepare(PNG, None, FRAMING)) for _ in range(2)]
    await asyncio.to_thread(gate.reached.acquire)
    with pytest.raises(QueueFull, match="2 images"):
        await intake.prepare(PNG, None, FRAMING)
    gate.opened.set()
    assert len(await asyncio.gather(*held)) == 2
    await intake.prepare(PNG, None, FRAMING)
    intake.close()


async def test_cancelled_work_gives_its_place_back_when_it_ends(gate: Gate) -> None:
    intake = Intake(threads=1, capacity=2, limits=LIMITS, arena=small(), clock=gate)
    running = asyncio.create_task(intake.prepare(PNG, None, FRAMING))
    await asyncio.to_thread(gate.reached.acquire)
    waiting = asyncio.create_task(intake.prepare(PNG, None, FRAMING))
    await asyncio.sleep(0)
    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    assert running.cancelled()
    assert waiting.cancelled()
    # The one that waited left at once; the other's thread is still at work.
    third = asyncio.create_task(intake.prepare(PNG, None, FRAMING))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await intake.prepare(PNG, None, FRAMING)
    gate.opened.set()
    assert (await third).image_shape == (60, 90)
    intake.close()


async def test_closed_it_refuses_and_leaves_no_thread(gate: Gate) -> None:
    intake = Intake(threads=2, capacity=4, limits=LIMITS, arena=small(), clock=gate)
    gate.opened.set()
    await intake.prepare(PNG, None, FRAMING)
    intake.close()
    intake.close()
    with pytest.raises(Draining):
        await intake.prepare(PNG, None, FRAMING)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("intake")]
    assert cv2.getNumThreads() == 1
