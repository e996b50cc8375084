"""`yolopool tune` against a pool that answers: what it prints, stores and refuses."""

import json

import pytest

from tests.contract.cli.command_line import yolopool
from tests.contract.scripted_pool import ScriptedPool
from yolopool.v1 import types_pb2

SWEEP = ("--batch", "1,2,4,8,16")


def test_what_reaches_a_goal_is_drawn_and_stored(pool: ScriptedPool) -> None:
    pool.script.batching["cpu"] = types_pb2.Batching(queue_capacity=9)
    goal = ("--p99", "10s", "--rate", "5", "--store")
    done = yolopool(pool, "tune", "shapes", *goal, *SWEEP)
    assert done.returncode == 0, done.stderr
    drawn = done.stdout.partition("BATCH   PASS MS")[2]
    assert [line.split()[1] for line in drawn.splitlines() if line.startswith(">")] == ["8"]
    assert "proposed: max batch 8, preferred 1,2,4,8, delay 0 ms, 1 replica" in drawn
    assert max(map(len, done.stdout.splitlines())) <= 80
    sent = pool.script.last("SetBatching")
    assert (sent.model, sent.device_kind) == ("shapes@1", "cpu")
    assert sent.batching == types_pb2.Batching(
        max_batch=8, preferred_sizes=[1, 2, 4, 8], queue_capacity=9, p99_goal_ms=10_000
    )


def test_a_goal_out_of_reach_has_an_exit_code_and_changes_nothing(pool: ScriptedPool) -> None:
    done = yolopool(pool, "tune", "shapes", "--p99", "0.1ms", "--store", *SWEEP)
    assert done.returncode == 9, done.stderr
    assert "a p99 of 0.1 ms can't be reached at" in done.stdout
    assert "would reach it: " in done.stdout
    told = yolopool(pool, "tune", "shapes", "--p99", "0.1ms", "--store", "--json", *SWEEP)
    found = json.loads(told.stdout)
    assert (told.returncode, found["is_reached"], found["proposal"]) == (9, False, None)
    # Nobody said how much is asked of it: as much as in the last minute.
    assert found["goal"]["rate"] == 12.5
    assert all(call not in ("SetBatching", "LoadModel") for call, _, _ in pool.script.calls)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--p99", "soon"),
        ("--p99", "0"),
        ("--p99", "1s", "--check", "5"),
        ("--p99", "1", "--rate", "0"),
    ],
)
def test_wrong_goals_are_refused_before_anything_is_measured(
    pool: ScriptedPool, wrong: tuple[str, ...]
) -> None:
    assert yolopool(pool, "tune", "shapes", *wrong).returncode == 4
    assert not pool.script.calls
