"""`yolopool top` against a pool: one look, as text and as JSON."""

import json

from tests.contract.cli.command_line import yolopool
from tests.contract.scripted_pool import ScriptedPool


def test_one_look(pool: ScriptedPool) -> None:
    done = yolopool(pool, "top", "--once")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    words = done.stdout.split()
    for word in ("12.5", "READY", "shapes@1", "75%", "44", "\u2585\u2588"):
        assert word in words, word


def test_several_control_planes_are_added_up(pool: ScriptedPool) -> None:
    told = json.loads(
        yolopool(pool, "top", "--json", "--address", f"{pool.address},{pool.address}").stdout
    )
    (one,) = told["versions"]
    assert (one["requests_per_s"], one["p99_ms"], one["hit_ratio"]) == (25.0, 44.0, 0.75)
    assert len(told["workers"]) == 1
