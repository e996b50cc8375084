"""The harness of tests/chaos sees what it is there to see: wrong boxes, lost and late requests,
processes left behind.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np

from benchmarks.harness.processes import in_sessions
from tests.chaos.account import OK, Request
from tests.chaos.pictures import Box, Picture, grey
from tests.chaos.process import Process
from tests.chaos.traffic import Rate, Traffic
from yolopool.client.detections import Detections
from yolopool.errors import LedgerFull, Unavailable, YolopoolError

RATE = Rate(callers=3, pause_s=0.001, deadline_s=0.2)
PICTURES = grey((40, 41, 200), classes=3)
LASTING = "import time; print('up', flush=True); time.sleep(60)"


class ScriptedDoor:
    """Answers rightly, but for what is scripted: an error, another picture's boxes, silence."""

    def __init__(self, name: str, script: YolopoolError | Picture | None = None) -> None:
        self.name = name
        self.asked = 0
        self.silent = False
        self._script = script

    async def ask(self, model: str, image: bytes, timeout_s: float) -> Detections:
        self.asked += 1
        if self.silent:
            await asyncio.sleep(3600)
        if isinstance(self._script, YolopoolError):
            raise self._script
        given = self._script or next(one for one in PICTURES if one.encoded == image)
        return _answer(model, given.boxes)


def _answer(model: str, boxes: tuple[Box, ...]) -> Detections:
    return Detections(
        np.array([box.xyxy for box in boxes], np.float32).reshape(-1, 4),
        np.array([box.confidence for box in boxes], np.float32),
        np.array([box.class_id for box in boxes], np.int64),
        tuple("x" for _ in boxes),
        model=f"{model}@1",
    )


async def calls(*doors: ScriptedDoor, rate: Rate = RATE) -> list[Request]:
    """The requests of a moment's traffic."""
    traffic = Traffic([(door, "m") for door in doors], PICTURES, rate, Random(7))
    async with traffic:
        await asyncio.sleep(0.05)
    return traffic.requests()


def outcomes(requests: list[Request]) -> set[tuple[str, ...]]:
    return {tuple(attempt.outcome for attempt in one.attempts) for one in requests}


async def test_all_that_is_sent_is_on_record_once() -> None:
    one, other = ScriptedDoor("one"), ScriptedDoor("other")
    requests = await calls(one, other)
    assert outcomes(requests) == {(OK,)}
    assert all(request.right for request in requests)
    assert len(requests) == one.asked + other.asked
    assert set(Counter(request.number for request in requests).values()) == {1}


async def test_boxes_of_another_picture_are_wrong() -> None:
    requests = await calls(ScriptedDoor("one", PICTURES[0]))
    assert {request.right for request in requests} == {True, False}
    assert outcomes(requests) == {(OK,)}


async def test_a_door_that_is_away_is_tried_elsewhere_and_no_other_refusal_is() -> None:
    away, full = ScriptedDoor("away", Unavailable("x")), ScriptedDoor("full", LedgerFull("x"))
    assert outcomes(await calls(away, ScriptedDoor("one"))) == {("UNAVAILABLE", OK), (OK,)}
    assert outcomes(await calls(full, ScriptedDoor("one"))) == {("LEDGER_FULL",), (OK,)}
    assert outcomes(await calls(away)) == {("UNAVAILABLE",)}


async def test_a_call_that_never_ends_is_lost() -> None:
    door = ScriptedDoor("silent")
    door.silent = True
    requests = await calls(door, rate=replace(RATE, grace_s=0.1))
    assert outcomes(requests) == {()}
    assert len(requests) == 3


async def test_a_process_is_frozen_thawed_killed_and_started_again(tmp_path: Path) -> None:
    process = Process("one", [sys.executable, "-u", "-c", LASTING], tmp_path / "log")
    process.start()
    process.freeze()
    assert process.is_running
    process.kill()
    await process.ended(5.0)
    process.start()
    assert await process.stop()
    await process.ended(0.0)
    assert len(process.pids) == 2


async def test_a_child_whose_parent_was_killed_is_found(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LASTING!r}])"
    process = Process("one", [sys.executable, "-c", code], tmp_path / "log")
    process.start()
    async with asyncio.timeout(10):
        while "up" not in process.last_words():  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)
    process.kill()
    await process.ended(5.0)
    (left,) = in_sessions(process.pids)
    os.kill(left, signal.SIGKILL)
