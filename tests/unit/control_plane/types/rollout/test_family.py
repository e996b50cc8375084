"""What may be a family, and what of its members does not fit."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from control_plane.types.moments.sun import Place
from control_plane.types.rollout.family import Family, Member, check_family, of_members
from control_plane.types.version import ModelVersion, VersionState
from tests.unit.control_plane.fleets import version
from yolopool.errors import InvalidFamily, InvalidSchedule

BERLIN = Place(52.52, 13.405)


def sized(
    name: str, parameters: int, classes: tuple[str, ...] = ("bolt", "nut"), task: str = "detect"
) -> ModelVersion:
    one = version(name)
    assert one.pack is not None
    pack = replace(one.pack, parameters=parameters, class_names=classes, task=task)
    return replace(one, pack=pack, settings=replace(one.settings, image_size=640))


def family(*models: str, **more: object) -> Family:
    return Family(tuple(map(Member, models)), **more)  # type: ignore[arg-type] # of Family


def by_time(*pairs: tuple[str, str], **more: object) -> Family:
    members = tuple(Member(model, begins) for begins, model in pairs)
    return Family(members, **more)  # type: ignore[arg-type] # of Family


@pytest.mark.parametrize(
    "fine",
    [
        family("n", "s", "m", "l", "x"),
        family("n", "s", within_s=0.2),
        by_time(("06:00", "a"), ("22:00", "b"), ("12:00", "c")),
        by_time(("dawn", "a"), ("dusk-15m", "b"), place=BERLIN),
        by_time(("sunrise+1h", "a"), ("sunset", "b"), place=BERLIN),
    ],
)
def test_families(fine: Family) -> None:
    check_family(fine)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (family("n"), "2 to 16"),
        (family(*(f"m{n}" for n in range(17))), "2 to 16"),
        (family("n", "n"), "twice"),
        (family("n", "s", within_s=-1.0), "within_s"),
        (family("n", "s", within_s=float("nan")), "within_s"),
        (family("n", "s", place=BERLIN), "dawn and dusk"),
        (by_time(("06:00", "a"), ("", "b")), "each member"),
        (by_time(("06:00", "a"), ("06:00", "b")), "same time"),
        (by_time(("06:00", "a"), ("22:00", "b"), within_s=1.0), "within_s"),
        (by_time(("dawn", "a"), ("dusk", "b")), "the place"),
        (by_time(("06:00", "a"), ("0 6 * * *", "b")), "06:30"),
        (by_time(("dawn", "a"), ("12:00", "c"), ("dusk", "b"), place=BERLIN), "two members"),
    ],
)
def test_what_is_no_family_says_why(wrong: Family, says: str) -> None:
    with pytest.raises(InvalidFamily, match=says):
        check_family(wrong)


def test_what_is_no_day_and_night_says_why() -> None:
    with pytest.raises(InvalidSchedule, match="dawn and then dusk"):
        check_family(by_time(("dusk", "a"), ("dawn", "b"), place=BERLIN))
    with pytest.raises(InvalidSchedule, match="latitude"):
        check_family(by_time(("dawn", "a"), ("dusk", "b"), place=Place(99.0, 0.0)))


def test_members_of_one_task_and_class_list_fit() -> None:
    made = of_members(family("n", "s"), [sized("n", 3), sized("s", 11)])
    assert made.task == "detect"
    assert made.misfit(sized("n", 3)) == ""
    # As large as one another: the same weights with another shape policy.
    of_members(family("n", "s"), [sized("n", 3), sized("s", 3)])


def test_image_size_counts_with_parameters() -> None:
    large_image = sized("n", 3)
    large_image = replace(large_image, settings=replace(large_image.settings, image_size=1280))
    of_members(family("s", "n"), [sized("s", 11), large_image])
    with pytest.raises(InvalidFamily, match="s@1 does less work an image than n@1"):
        of_members(family("n", "s"), [large_image, sized("s", 11)])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (sized("s", 11, task="segment"), "s@1 is for segment, n@1 for detect"),
        (sized("s", 11, ("bolt",)), "s@1 has 1 classes, n@1 2"),
        (sized("s", 11, ("nut", "bolt")), "class 0 is 'nut' of s@1, 'bolt' of n@1"),
        (sized("s", 2), "from small to large"),
        (replace(sized("s", 11), pack=None, state=VersionState.IMPORTING), "s@1 is IMPORTING"),
    ],
)
def test_members_that_do_not_fit_are_named(other: ModelVersion, says: str) -> None:
    with pytest.raises(InvalidFamily, match=says):
        of_members(family("n", "s"), [sized("n", 3), other])


def test_by_the_time_of_day_any_order_of_sizes_fits() -> None:
    of_members(by_time(("06:00", "s"), ("22:00", "n")), [sized("s", 11), sized("n", 3)])


def test_a_later_version_with_other_classes_can_not_answer() -> None:
    made = of_members(family("n", "s"), [sized("n", 3), sized("s", 11)])
    assert "other classes" in made.misfit(sized("n", 3, ("bolt", "screw")))
    assert "for pose" in made.misfit(sized("n", 3, task="pose"))


def test_whose_time_it_is() -> None:
    def at(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()

    clock = by_time(("06:00", "a"), ("22:00", "b"), time_zone="Europe/Berlin")
    assert [clock.part(at(f"2026-06-21T{hour}:00")).number for hour in ("05", "06", "23")] == [
        1,
        0,
        1,
    ]
    sun = by_time(("dawn", "a"), ("dusk", "b"), place=BERLIN)
    assert [sun.part(at(f"2026-06-21T{hour}:00")).number for hour in ("03", "12", "23")] == [
        1,
        0,
        1,
    ]
