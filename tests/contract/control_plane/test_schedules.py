"""Schedules over real gRPC, on a wall clock that the tests move; and models declared at start."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from control_plane.models import schedule_controller
from control_plane.settings import read_settings
from control_plane.store.memory_registry import MemoryRegistry
from control_plane.types.schedule import Schedule
from control_plane.types.version import VersionKey
from tests.contract.control_plane.test_changeover import wants
from tests.contract.control_plane_rig import Rig, refused
from tests.waiting import becomes
from yolopool import errors
from yolopool.server.clock import Clock
from yolopool.v1 import model_pb2, schedule_pb2, types_pb2

BERLIN = ZoneInfo("Europe/Berlin")
PLACE = types_pb2.Place(latitude=52.52, longitude=13.405)


def berlin(text: str) -> float:
    return datetime.fromisoformat(f"2026-11-{text}").replace(tzinfo=BERLIN).timestamp()


class Wall:
    """A wall clock that runs, and can be set."""

    def __init__(self, unix_s: float) -> None:
        self.set(unix_s)

    def set(self, unix_s: float) -> None:
        self._ahead_s = unix_s - time.monotonic()

    @property
    def clock(self) -> Clock:
        return Clock(time.monotonic, lambda: self._ahead_s + time.monotonic())


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_controller, "TICK_S", 0.05)
    monkeypatch.setattr(schedule_controller, "RETRY_S", 0.2)


@pytest.fixture
def wall() -> Wall:
    return Wall(berlin("20T05:00"))


@pytest.fixture
async def rig(tmp_path: Path, wall: Wall) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, clock=wall.clock) as one:
        yield one


def a_schedule(
    name: str, cron: str, prepare: str = "", release: str = "", **more: Any
) -> schedule_pb2.Schedule:
    loads = [model_pb2.LoadModelRequest(model=one) for one in prepare.split()]
    change = model_pb2.ChangeoverRequest(prepare=loads, release=release.split())
    fields = {"time_zone": "Europe/Berlin", **more}
    return schedule_pb2.Schedule(name=name, cron=cron, change=change, **fields)


async def put(rig: Rig, *arguments: str, **more: Any) -> Any:
    request = schedule_pb2.SetScheduleRequest(schedule=a_schedule(*arguments, **more))
    return (await rig.schedules.SetSchedule(request, timeout=5)).schedule


async def listed(rig: Rig) -> dict[str, Any]:
    answer = await rig.schedules.ListSchedules(schedule_pb2.ListSchedulesRequest(), timeout=5)
    return {one.schedule.name: one for one in answer.schedules}


def noted(rig: Rig, name: str) -> Schedule:
    return rig.plane.view.desired.schedules[name]


# --- the service ---------------------------------------------------------------------------------


async def test_a_schedule_is_set_listed_and_deleted(rig: Rig) -> None:
    await rig.ready("a", "b")
    made = await put(rig, "night", "0  19 * * *", "b", "a", lead_s=600.0)
    expected = a_schedule("night", "0 19 * * *", "b", "a", lead_s=600.0)
    expected.change.prepare[0].replicas = 1
    assert made.schedule == expected
    assert (made.next_unix_s, made.last_unix_s, made.last_error) == (berlin("20T19:00"), 0.0, "")
    await put(rig, "day", "0 6 * * *", "a", "b", time_zone="")
    assert list(await listed(rig)) == ["day", "night"]
    assert (await put(rig, "night", "0 19 * * *", "b", "a", lead_s=600.0)) == made
    request = schedule_pb2.DeleteScheduleRequest(name="night")
    await rig.schedules.DeleteSchedule(request, timeout=5)
    assert list(await listed(rig)) == ["day"]
    again = await refused(rig.schedules.DeleteSchedule(request, timeout=5))
    assert isinstance(again, errors.ScheduleNotFound)


async def test_what_is_wrong_with_a_schedule_is_said(rig: Rig) -> None:
    await rig.ready("a")
    wrong: list[tuple[tuple[str, ...], dict[str, Any], type[Exception], str]] = [
        (("day", "0 25 * * *", "a"), {}, errors.InvalidSchedule, "hour"),
        (("day", "", "a"), {"sun": "noon", "place": PLACE}, errors.InvalidSchedule, "dusk-15m"),
        (("day", "", "a"), {"sun": "dusk"}, errors.InvalidSchedule, "place"),
        (("day", "0 6 * * *", "a"), {"place": PLACE}, errors.InvalidSchedule, "sun"),
        (
            ("day", "0 6 * * *", "a"),
            {"sun": "dusk", "place": PLACE},
            errors.InvalidSchedule,
            "both",
        ),
        (("day", "", "a"), {}, errors.InvalidSchedule, "five fields"),
        (("day", "0 6 * * *", "a"), {"time_zone": "Berlin"}, errors.InvalidSchedule, "IANA"),
        (("Day!", "0 6 * * *", "a"), {}, errors.InvalidSchedule, "name"),
        (("day", "0 6 * * *", "a"), {"lead_s": -1.0}, errors.InvalidSchedule, "lead_s"),
        (("day", "0 6 * * *", "a"), {"lead_s": float("nan")}, errors.InvalidSchedule, "lead_s"),
        (("day", "0 6 * * *", "a a@1"), {}, errors.InvalidSchedule, "twice"),
        (("day", "0 6 * * *", "absent"), {}, errors.ModelNotFound, "absent"),
        (("day", "0 6 * * *", "a", "a@7"), {}, errors.VersionNotFound, "a@7"),
        (("day", "0 6 * * *"), {}, errors.InvalidOption, "prepare"),
    ]
    for arguments, more, kind, says in wrong:
        error = await refused(put(rig, *arguments, **more))
        assert type(error) is kind, error
        assert says in error.message
    assert await listed(rig) == {}


# --- what comes of it ----------------------------------------------------------------------------


async def test_a_change_begins_ahead_and_ends_at_its_moment(rig: Rig, wall: Wall) -> None:
    await rig.ready("a", "b")
    worker = await rig.worker("w")
    await rig.load("a")
    await put(rig, "day", "0 6 * * *", "b", "a", lead_s=600.0)
    wall.set(berlin("20T05:49:59"))
    await becomes(lambda: "b@1" in worker.replicas)
    await rig.load("b")
    assert set(await wants(rig)) == {"a@1", "b@1"}
    assert noted(rig, "day").last_unix_s == 0.0
    wall.set(berlin("20T05:59:59"))
    await becomes(lambda: noted(rig, "day").last_unix_s)
    assert set(await wants(rig)) == {"b@1"}
    status = (await listed(rig))["day"]
    assert (status.last_unix_s, status.last_error) == (berlin("20T06:00"), "")
    assert status.next_unix_s == berlin("21T06:00")


async def test_a_schedule_by_the_sun(rig: Rig, wall: Wall) -> None:
    await rig.ready("a", "b")
    worker = await rig.worker("w")
    await rig.load("a")
    made = await put(rig, "night", "", "b", "a", sun="dusk-15m", place=PLACE)
    # Civil dusk in Berlin on that day is at 16:45.
    assert abs(made.next_unix_s - berlin("20T16:30")) <= 120
    assert (made.schedule.cron, made.schedule.sun, made.schedule.place) == ("", "dusk-15m", PLACE)
    assert made.sun_absence == ""
    wall.set(made.next_unix_s - 1)
    await becomes(lambda: noted(rig, "night").last_unix_s == made.next_unix_s)
    assert set(await wants(rig)) == {"b@1"}
    assert "b@1" in worker.replicas
    north = types_pb2.Place(latitude=78.2, longitude=15.6)
    made = await put(rig, "north", "", "a", sun="sunrise", place=north)
    assert "does not come as high as at sunrise" in made.sun_absence
    assert made.next_unix_s > berlin("20T00:00") + 80 * 86_400


async def test_nothing_is_released_before_all_are_loaded(rig: Rig, wall: Wall) -> None:
    await rig.ready("a", "b", "c")
    worker = await rig.worker("w", models=3)
    await rig.load("a")
    worker.refuse["c@1"] = errors.OutOfMemory("the device has 3 bytes left")
    await put(rig, "day", "0 6 * * *", "b c", "a")
    wall.set(berlin("20T06:00"))
    await becomes(lambda: noted(rig, "day").last_error)
    status = (await listed(rig))["day"]
    assert status.last_unix_s == berlin("20T06:00")
    assert "3 bytes left" in status.last_error
    assert set(await wants(rig)) == {"a@1", "b@1", "c@1"}
    worker.refuse.clear()
    await becomes(lambda: not noted(rig, "day").last_error)
    assert set(await wants(rig)) == {"b@1", "c@1"}


async def test_for_a_schedule_that_never_fits_nothing_leaves(rig: Rig, wall: Wall) -> None:
    await rig.ready("a", "b", "c", "d")
    worker = await rig.worker("w", models=2)
    await rig.load("a")
    await put(rig, "day", "0 6 * * *", "b c d", "a")
    wall.set(berlin("20T06:00"))
    await becomes(lambda: noted(rig, "day").last_error)
    assert noted(rig, "day").last_error.startswith("CHANGEOVER_FAILED: ")
    assert worker.assigned == ["a@1"]
    assert set(await wants(rig)) == {"a@1"}
    await rig.worker("w2", models=3)
    await becomes(lambda: not noted(rig, "day").last_error)
    assert set(await wants(rig)) == {"b@1", "c@1", "d@1"}


async def test_what_became_of_its_models_is_looked_up_at_the_moment(rig: Rig, wall: Wall) -> None:
    await rig.ready("a", "b", "c")
    await rig.worker("w")
    await put(rig, "day", "0 6 * * *", "a", "b")
    await put(rig, "late", "0 8 * * *", "c")
    await rig.register("a", b"a, the next")
    await rig.import_next()
    await rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="b"), timeout=5)
    await rig.registry.delete([VersionKey("c", 1)])  # as an earlier release does
    wall.set(berlin("20T06:00"))
    await becomes(lambda: noted(rig, "day").last_unix_s)
    assert noted(rig, "day").last_error == ""
    assert set(await wants(rig)) == {"a@2"}
    wall.set(berlin("20T08:00"))
    await becomes(lambda: noted(rig, "late").last_error)
    assert noted(rig, "late").last_error.startswith("MODEL_NOT_FOUND: ")


async def test_missed_moments_are_made_up_for(tmp_path: Path, wall: Wall) -> None:
    registry = MemoryRegistry()
    async with Rig(tmp_path, registry, wall.clock) as rig:
        await rig.ready("a", "b", "c")
        await put(rig, "day", "0 6 * * *", "a c", "b")
        await put(rig, "night", "0 19 * * *", "b", "a")
    wall.set(berlin("22T20:00"))
    async with Rig(tmp_path, registry, wall.clock) as rig:
        worker = await rig.worker("w", models=3)
        await becomes(lambda: noted(rig, "night").last_unix_s)
        assert noted(rig, "day").last_unix_s == berlin("22T06:00")
        assert noted(rig, "night").last_unix_s == berlin("22T19:00")
        assert set(await wants(rig)) == {"b@1", "c@1"}
        assert worker.assigned.index("a@1") < worker.assigned.index("b@1")


async def test_another_control_plane_goes_on_where_one_ended(tmp_path: Path, wall: Wall) -> None:
    registry = MemoryRegistry()
    async with Rig(tmp_path / "1", registry, wall.clock) as first:
        await first.ready("a", "b", "c")
        one = await first.worker("w", models=3)
        await first.load("a")
        one.load_s = 30.0
        await put(first, "day", "0 6 * * *", "b c", "a")
        wall.set(berlin("20T06:00"))
        await becomes(lambda: {"b@1", "c@1"} <= set(one.replicas))
        async with Rig(tmp_path / "2", registry, wall.clock) as second:
            await asyncio.sleep(0.3)  # it is there, and does not decide
            assert not second.plane._election.is_leader
            await first.plane.stop()
            assert set(await wants(second)) == {"a@1", "b@1", "c@1"}
            await second.worker("w", models=3)
            await becomes(lambda: noted(second, "day").last_unix_s)
            assert set(await wants(second)) == {"b@1", "c@1"}
            assert noted(second, "day").last_error == ""


async def test_a_schedule_waits_for_a_changeover_of_the_same_models(rig: Rig, wall: Wall) -> None:
    await rig.ready("a", "b")
    worker = await rig.worker("w")
    await rig.load("a")
    await put(rig, "day", "0 6 * * *", "b", "a")
    worker.load_s = 1.0
    request = model_pb2.ChangeoverRequest(
        prepare=[model_pb2.LoadModelRequest(model="b", replicas=2)]
    )
    call = rig.models.Changeover(request, timeout=0.7)
    await becomes(lambda: "b@1" in worker.replicas)
    wall.set(berlin("20T06:00"))
    assert isinstance(await refused(call), errors.DeadlineExceeded)
    await becomes(lambda: noted(rig, "day").last_unix_s)
    (want,) = (await wants(rig)).values()
    assert (str(want.key), want.replicas) == ("b@1", 1)


async def test_a_registry_that_goes_away_is_waited_for(
    rig: Rig, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.ready("a", "b")
    await rig.worker("w")
    await put(rig, "day", "0 6 * * *", "a", "b")
    note, tries = rig.registry.note_schedule, []

    async def away_at_first(*arguments: Any) -> Any:
        tries.append(arguments)
        if len(tries) < 3:
            raise errors.RegistryUnavailable("Redis does not answer")
        return await note(*arguments)

    monkeypatch.setattr(rig.registry, "note_schedule", away_at_first)
    wall.set(berlin("20T06:00"))
    await becomes(lambda: noted(rig, "day").last_unix_s)
    assert len(tries) == 3


# --- models declared at start --------------------------------------------------------------------


async def test_declared_models_are_up_once_they_can_be(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    async with Rig(tmp_path, registry) as rig:
        await rig.ready("a")
    async with Rig(tmp_path, registry, load="a,b@2") as rig:
        worker = await rig.worker("w", models=3)
        await becomes(lambda: "a@1" in worker.replicas)
        assert worker.replicas["a@1"].pinned
        await rig.ready("b")
        assert set(await wants(rig)) == {"a@1"}
        await rig.register("b", b"the second of b")
        await rig.import_next()
        await becomes(lambda: "b@2" in worker.replicas)
        found = await wants(rig)
        assert {name: (w.replicas, w.pinned) for name, w in found.items()} == {
            "a@1": (1, True),
            "b@2": (1, True),
        }
        # Once a start: what its users say later counts.
        await rig.models.UnloadModel(model_pb2.UnloadModelRequest(model="a", wait=True), timeout=5)
        await rig.keep("b@1", mode=types_pb2.RESIDENCY_MODE_NORMAL)
        assert set(await wants(rig)) == {"b@2"}


@pytest.mark.parametrize(
    "flags", [["--load", "a", "--load", "team/b@2"], ["--load=a,team/b@2"], ["--load=a, team/b@2"]]
)
def test_load_is_repeated_or_parted_by_commas(flags: list[str]) -> None:
    assert read_settings(flags).load == ("a", "team/b@2")


def test_load_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOPOOL_CONTROL_PLANE_LOAD", "a,b")
    assert read_settings([]).load == ("a", "b")


def test_load_names_models() -> None:
    with pytest.raises(ValueError, match="not a model reference"):
        read_settings(["--load", "A model"])
