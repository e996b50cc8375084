"""The doctor names the right cause first, from pools in virtual time and from a few lines."""

import shlex
from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
import pytest
import typer

from benchmarks.doctor.pool_model import PoolModel
from benchmarks.doctor.situations import HEALTHY, SITUATIONS, shortened
from yolopool.cli import main
from yolopool.cli.doctor.log_files import time_of
from yolopool.doctor import rows as doctor_rows
from yolopool.doctor.diagnosis import findings
from yolopool.doctor.finding import Cause, Finding
from yolopool.doctor.rows import RowsBuilder, rows_of

ROOT: Any = typer.main.get_command(main.app)
ILL = [name for name in SITUATIONS if name != HEALTHY]


def found_in(situation: str, seed: int) -> tuple[Finding, ...]:
    rng = Random(f"{situation} {seed}")
    physics = shortened(SITUATIONS[situation](rng), 3000)
    return diagnosis(PoolModel(physics, rng).lines())


def diagnosis(lines: list[dict[str, Any]]) -> tuple[Finding, ...]:
    """Lines without a time are a second apart."""
    return findings(
        rows_of(
            [
                (time_of(line) if "timestamp" in line else float(number), line)
                for number, line in enumerate(lines)
            ]
        )
    )


def test_every_cause_is_tried() -> None:
    assert set(ILL) == set(Cause)


@pytest.mark.matrix(sample=7)
@pytest.mark.parametrize("situation", ILL)
def test_the_cause_comes_first_and_what_is_to_be_changed_can_be(situation: str) -> None:
    first = found_in(situation, 1)[0]
    assert first.cause == situation
    assert 0 < first.share <= 1
    assert first.cost_ms > 0
    assert first.rows >= len(first.places) > 0
    assert first.evidence
    assert first.about
    for change in first.change:
        check(change)


def check(change: str) -> None:
    """A command exists, with its options; what no command can is said in words."""
    words = shlex.split(change.partition(": ")[0].replace("'", ""))
    if words[0] != "yolopool":
        return
    command, rest = ROOT, words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    if command.name not in ("worker", "control-plane"):  # they describe their flags themselves
        options = {name for one in command.params for name in one.opts}
        assert {word for word in rest if word.startswith("--")} <= options, change
        assert not hasattr(command, "commands"), change


@pytest.mark.parametrize("seed", range(2))
def test_of_a_pool_that_is_well_nothing_is_said(seed: int) -> None:
    assert found_in(HEALTHY, seed) == ()


def line(second: int, inference_ms: float, used_gb: float, wait_ms: float) -> dict[str, Any]:
    """Of a device of 4 GB."""
    return {
        "outcome": "OK", "model": "parts", "version": 1, "device": "cuda:GPU-0", "worker": "w0",
        "principal": "anonymous", "hit": True, "batch_size": 1, "batch_id": second, "cold": False,
        "memory_retries": 0, "queue_length": second, "route_ms": 0.2, "load_wait_ms": 0.0,
        "queue_ms": wait_ms, "decode_ms": 3.0, "preprocess_ms": 1.0, "transfer_ms": 0.1,
        "inference_ms": inference_ms, "postprocess_ms": 0.5, "deadline_ms": 30000.0,
        "total_ms": inference_ms + wait_ms + 6.0, "device_used_bytes": used_gb * 1e9,
        "device_free_bytes": (4.0 - used_gb) * 1e9,
    }  # fmt: skip


CLASSIC = [line(0, 48.0, 1.2, 2.0), line(1, 51.0, 2.6, 3.0), line(2, 297.0, 3.98, 150.0)]


def test_three_lines_are_enough_where_memory_fills() -> None:
    (first,) = diagnosis(CLASSIC)
    assert first.cause is Cause.MEMORY_PRESSURE
    assert first.places == (3,)
    assert "297 ms against 50" in first.evidence
    assert first.cost_ms == pytest.approx(249, abs=1)


def test_a_clock_that_is_never_high_is_no_cause_unless_the_device_says_so() -> None:
    lines = [
        {**line(second, 50.0 + second % 3, 1.2, 2.0), "device_clock_ratio": 0.8}
        for second in range(60)
    ]
    assert diagnosis(lines) == ()
    (first,) = diagnosis([{**one, "throttled": ["power"]} for one in lines])
    assert first.cause is Cause.THROTTLED
    assert first.evidence == "at 80 % of its highest clock a pass takes 51.0 ms"


def test_a_slow_worker_without_a_gpu_is_not_looked_for_with_nvidia_smi() -> None:
    slow = [{**line(second, 100.0, 1.2, 2.0), "device": "cpu:0"} for second in range(20)]
    quick = [{**line(second, 50.0, 1.2, 2.0), "device": "cpu:1"} for second in range(80)]
    (first,) = diagnosis(slow + quick)
    assert (first.cause, first.about) == (Cause.SLOW_DEVICE, "cpu:0")
    assert "nvidia" not in " ".join(first.change)


def test_requests_without_a_line_are_counted_where_others_stand_for_them() -> None:
    """Two threads decode all the time, which one line in ten tells."""
    lines = [
        {**line(second, 5.0, 1.2, 1.0), "decode_ms": 200.0, "total_ms": 500.0, "sampled": 0.1}
        for second in range(40)
    ]
    assert diagnosis(lines)[0].cause is Cause.DECODE_BOUND
    builder = RowsBuilder(max_rows=40)
    for number in range(400):
        one = {**lines[0], "sampled": 1.0}
        builder.add(one, number / 10, number + 1)
    rows = builder.rows()
    assert rows.requests.sum() == pytest.approx(400, rel=0.1)
    assert findings(rows)[0].cause is Cause.DECODE_BOUND
    again = [
        {**line(second, 50.0, 1.2, 1.0), "sampled": 0.01, "principal": "key:a"}
        for second in range(50)
    ]
    retry = {**again[0], "sampled": 1.0, "client_retry": 1, "outcome": "CANCELLED"}
    assert diagnosis([*again, *[retry] * 20]) == ()


def without(lines: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if name not in names} for one in lines]


def test_a_log_that_lacks_fields_is_read_as_far_as_it_goes() -> None:
    """Logs of an earlier release, and of requests that no worker answered."""
    few = without(CLASSIC, "device_used_bytes", "device_free_bytes", "transfer_ms", "batch_id")
    assert diagnosis(few) == ()
    bare: Mapping[str, Any] = {"outcome": "QUEUE_FULL", "model": "parts", "total_ms": 1.0}
    assert diagnosis([dict(bare)] * 50) == ()
    assert diagnosis([]) == ()


@pytest.mark.parametrize(
    "broken",
    [
        {"outcome": "OK"},
        {"outcome": 7, "model": "a"},
        {"outcome": "OK", "model": "a", "total_ms": "soon"},
        {"outcome": "OK", "model": "a", "queue_ms": [1]},
        {"outcome": "OK", "model": "a", "device": 3},
    ],
)
def test_a_broken_line_leaves_nothing(broken: dict[str, Any]) -> None:
    builder = RowsBuilder()
    builder.add(CLASSIC[0], 0.0, 1)
    with pytest.raises((KeyError, ValueError, TypeError)):
        builder.add(broken, 1.0, 2)
    builder.add(CLASSIC[1], 2.0, 3)
    rows = builder.rows()
    assert rows.places.tolist() == [1, 3]
    assert {len(column) for column in (*rows.numbers.values(), *rows.codes.values())} == {2}


def test_however_many_rows_there_are_so_many_are_kept_and_of_all_of_them() -> None:
    builder = RowsBuilder(max_rows=1000)
    for number in range(20_000):
        builder.add(CLASSIC[0], float(number), number + 1)
    rows = builder.rows()
    assert 400 <= len(rows) < 1000
    assert len(rows) + builder.dropped == 20_000
    assert np.ptp(rows.places) > 19_000
    assert np.diff(rows.places).max() <= 64


def test_a_table_takes_few_bytes_a_row() -> None:
    bytes_a_row = 4 * (len(doctor_rows.NUMBERS) + len(doctor_rows.TEXTS)) + 16
    assert bytes_a_row * doctor_rows.MAX_ROWS < 100e6
