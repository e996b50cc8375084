"""The local copy of desired state on a real disk."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from control_plane.store.backup import DesiredBackup
from control_plane.types.desired import Desired, Want, WantSource
from control_plane.types.schedule import Changeover, Preparation, Schedule
from tests.contract.registry.samples import HOOK, ISSUED, NORTH, RULE, STABLE, WATCHED
from tests.unit.control_plane.fleets import key, version
from yolopool.server.clock import Clock

DESIRED = Desired(
    7,
    "cluster",
    {key(name): version(name) for name in ("a", "team/b")},
    {key("a"): Want(key("a"), 2, True, WantSource.ADMIN, 1.0)},
    {"w1": "i1"},
    {
        "day": Schedule(
            "day", "0 6 * * *", "UTC", 60.0, Changeover((Preparation("a"),), ("b",)), 1.0
        )
    },
    {"a": 3, "gone": 9},
    {ISSUED.id: ISSUED},
    {NORTH.name: NORTH},
    {STABLE.key: STABLE},
    {RULE.pattern: RULE},
    {WATCHED.name: WATCHED},
    {HOOK.key: HOOK},
    "mark",
)


def a_copy(folder: Path) -> DesiredBackup:
    return DesiredBackup(folder / "deep" / "copy.jsonl", Clock(lambda: 0.0, lambda: 0.0))


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    assert a_copy(tmp_path).read() is None
    copy = a_copy(tmp_path)
    size = copy.write(DESIRED)
    file = tmp_path / "deep" / "copy.jsonl"
    assert size == file.stat().st_size
    assert file.stat().st_mode & 0o077 == 0  # it has the hashes of keys
    assert a_copy(tmp_path).read() == DESIRED
    changed = replace(DESIRED, revision=8, versions={key("c"): version("c")}, wants={})
    copy.write(changed)
    assert a_copy(tmp_path).read() == changed
    assert [path.name for path in file.parent.iterdir()] == ["copy.jsonl"]


def test_a_copy_of_another_store_is_set_aside(tmp_path: Path) -> None:
    a_copy(tmp_path).write(DESIRED)
    copy, file = a_copy(tmp_path), tmp_path / "deep" / "copy.jsonl"
    copy.read()
    with structlog.testing.capture_logs() as logs:
        copy.write(replace(DESIRED, cluster="other"))
    assert logs[0]["log_level"] == "error"
    assert (logs[0]["store"], logs[0]["copy"]) == ("other", "cluster")
    kept = a_copy(tmp_path).read()
    assert kept is not None
    assert kept.cluster == "other"
    file.with_name("copy.jsonl.old").rename(file)
    assert a_copy(tmp_path).read() == DESIRED


@pytest.mark.parametrize(
    "less",
    [
        replace(DESIRED, revision=6),  # the store went back
        replace(DESIRED, revision=8, versions={}, wants={}),
        replace(DESIRED, revision=8, numbers={}),
        replace(DESIRED, revision=8, schedules={}),
    ],
)
def test_a_copy_that_said_more_is_kept_beside(tmp_path: Path, less: Desired) -> None:
    a_copy(tmp_path).write(DESIRED)
    copy, file = a_copy(tmp_path), tmp_path / "deep" / "copy.jsonl"
    copy.read()
    with structlog.testing.capture_logs() as logs:
        copy.write(less)
    assert [log["event"] for log in logs] == ["the local copy said more"]
    assert a_copy(tmp_path).read() == less
    file.with_name("copy.jsonl.old").rename(file)
    assert a_copy(tmp_path).read() == DESIRED


def test_a_copy_that_says_as_much_is_replaced(tmp_path: Path) -> None:
    copy = a_copy(tmp_path)
    copy.write(DESIRED)
    copy.write(replace(DESIRED, revision=8, versions={key("a"): version("a")}, wants={}))
    assert not (tmp_path / "deep" / "copy.jsonl.old").exists()


@pytest.mark.parametrize("damage", ["", "{", "half", '{"format": 99}\n'])
def test_a_damaged_copy_is_said_and_set_aside(tmp_path: Path, damage: str) -> None:
    a_copy(tmp_path).write(DESIRED)
    file = tmp_path / "deep" / "copy.jsonl"
    text = file.read_text()
    file.write_text(text[: len(text) // 2] if damage == "half" else damage)
    with structlog.testing.capture_logs() as logs:
        assert a_copy(tmp_path).read() is None
    assert "CAN'T BE READ" in logs[0]["event"]
    assert file.with_name("copy.jsonl.old").exists()


async def test_what_stands_is_not_written_again_and_a_full_disk_is_said(tmp_path: Path) -> None:
    copy, file = a_copy(tmp_path), tmp_path / "deep" / "copy.jsonl"
    await copy.keep_now(DESIRED)
    os.utime(file, (1, 1))
    await copy.keep_now(DESIRED)
    assert file.stat().st_mtime == 1
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("in the way")
    with structlog.testing.capture_logs() as logs:
        await copy.keep_now(replace(DESIRED, revision=8))
    assert "can't be written" in logs[0]["event"]
    file.parent.unlink()
    await copy.keep_now(replace(DESIRED, revision=8))
    assert a_copy(tmp_path).read() == replace(DESIRED, revision=8)


async def test_it_is_kept_while_the_process_runs(tmp_path: Path) -> None:
    copy, desired = a_copy(tmp_path), DESIRED
    keeping = asyncio.create_task(copy.keep(lambda: True, lambda: desired))
    async with asyncio.timeout(20):
        while a_copy(tmp_path).read() != DESIRED:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)
        desired = replace(DESIRED, revision=8)
        while a_copy(tmp_path).read() != desired:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
