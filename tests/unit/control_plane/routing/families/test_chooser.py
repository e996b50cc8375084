"""The choice of a family over a real view: queues, calls on their way, answers, times of day."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest

from control_plane.routing.families.chooser import FamilyChooser
from control_plane.types.desired import Desired
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.rollout.family import Family, Member, classes_of
from control_plane.types.worker import LoadReport, WorkerInfo
from control_plane.view.view import View
from tests.unit.control_plane.fleets import key, replica, version, worker
from yolopool.errors import ModelNotFound
from yolopool.server.clock import Clock
from yolopool.v1 import detection_pb2

RUNS_MS = {"n": 3.0, "s": 6.0, "m": 10.0, "l": 14.0, "x": 18.0}


class Times:
    def __init__(self) -> None:
        self.monotonic, self.unix = 1000.0, 1e9

    def clock(self) -> Clock:
        return Clock(lambda: self.monotonic, lambda: self.unix)


class Fleet:
    """A view of one worker that holds all members of `site:any`."""

    def __init__(self, family: Family, runs_ms: Mapping[str, float] = RUNS_MS) -> None:
        self.times = Times()
        self.view = View(self.times.clock())
        versions = {key(name): version(name) for name in RUNS_MS}
        family = replace(family, task="detect", classes=classes_of(version("n")))
        self.alias = Alias("site", "any", (), 600.0, 0.0, family=family)
        aliases = {self.alias.key: self.alias}
        self.view.take_desired(Desired(1, "c", versions, {}, aliases=aliases))
        held = [replace(replica(name), inference_ms=ms) for name, ms in runs_ms.items()]
        self.join(worker("w", replicas=held, lease=2000.0))
        self.chooser = FamilyChooser(self.view, self.times.clock(), Random(1))

    def join(self, one: WorkerInfo) -> None:
        self.view.join(one, None)

    def waits(self, wait_ms: float, outstanding: int = 1) -> None:
        self.view.loads["w"] = LoadReport(outstanding, 64, wait_ms, 1)

    def chosen(self, within_s: float) -> str:
        return str(self.chooser.choose(self.alias, self.times.monotonic + within_s).ref)


SIZES = Family(tuple(map(Member, RUNS_MS)))


def test_the_queue_decides_the_size() -> None:
    fleet = Fleet(SIZES)
    assert fleet.chosen(0.1) == "x"
    fleet.waits(60.0)
    assert fleet.chosen(0.1) == "l"
    fleet.waits(70.0)
    assert fleet.chosen(0.1) == "n"
    # Who has more time is not concerned.
    assert fleet.chosen(2.0) == "x"


def test_calls_on_their_way_count_for_what_they_are() -> None:
    fleet = Fleet(SIZES)
    for _ in range(4):
        fleet.view.sent("w", key("x"))
    # 4 x 18 ms + 3 ms and what is beside: for a small call, too, large ones are ahead.
    assert fleet.chosen(0.08) == "n"
    assert fleet.chosen(0.5) == "x"


def test_within_holds_where_deadlines_are_later() -> None:
    fleet = Fleet(replace(SIZES, within_s=0.02))
    assert fleet.chosen(30.0) == "m"
    assert fleet.chosen(0.012) == "n"


def test_what_a_request_takes_beside_its_pass_is_learned() -> None:
    fleet = Fleet(SIZES)
    assert fleet.chosen(0.05) == "x"
    timing = detection_pb2.Timing(queue_ms=2.0, inference_ms=18.0)
    for _ in range(60):
        choice = fleet.chooser.choose(fleet.alias, fleet.times.monotonic + 30.0)
        fleet.times.monotonic += 0.050  # of which 30 ms decode and send
        fleet.chooser.answered(choice, detection_pb2.DetectResponse(timing=timing), 0.0)
    assert fleet.chosen(0.05) == "m"


def test_calls_that_share_passes_count_for_less_once_that_was_seen() -> None:
    fleet = Fleet(SIZES)
    for _ in range(4):
        fleet.view.sent("w", key("x"))
    assert fleet.chosen(0.08) == "n"
    # They run in one pass, of 30 ms.
    timing = detection_pb2.Timing(queue_ms=0.0, inference_ms=30.0)
    for _ in range(60):
        choice = fleet.chooser.choose(fleet.alias, fleet.times.monotonic + 30.0)
        fleet.times.monotonic += 0.035
        fleet.chooser.answered(choice, detection_pb2.DetectResponse(timing=timing), 0.0)
    fleet.times.monotonic += 60.0
    fleet.view.workers["w"] = replace(fleet.view.workers["w"], lease_until_s=9e9)
    assert fleet.chosen(0.08) == "x"


def test_the_next_smaller_that_is_loaded() -> None:
    fleet = Fleet(SIZES, {"n": 3.0, "m": 10.0, "x": 18.0})
    choice = fleet.chooser.choose(fleet.alias, fleet.times.monotonic + 1.0)
    tried = [str(choice.ref)]
    while (smaller := fleet.chooser.smaller(choice)) is not None:
        choice = smaller
        tried.append(str(choice.ref))
    assert tried == ["x", "m", "n"]
    # The next request does not try what was just refused.
    assert fleet.chosen(1.0) == "n"


def test_where_none_is_loaded_the_smallest_that_can_be() -> None:
    fleet = Fleet(SIZES, {})
    assert fleet.chosen(1.0) == "n"
    gone = Family((Member("gone"), Member("s"), Member("m")))
    assert Fleet(gone, {}).chosen(1.0) == "s"


def test_a_family_is_for_who_sees_all_of_its_members() -> None:
    fleet = Fleet(SIZES)
    deadline_s = fleet.times.monotonic + 1.0
    fleet.chooser.choose(fleet.alias, deadline_s, ("site", "[nsmlx]"))
    with pytest.raises(ModelNotFound) as hidden:
        fleet.chooser.choose(fleet.alias, deadline_s, ("site", "[nsml]"))
    assert "'site'" in hidden.value.message
    assert "x" not in hidden.value.message.replace("exist", "")


def test_by_the_time_of_day() -> None:
    fleet = Fleet(Family((Member("s", "06:00"), Member("x", "22:00"))))
    assert fleet.chosen(1.0) == "x"  # 2001-09-09T01:46:40Z
    fleet.times.unix += 5 * 3600
    assert fleet.chosen(1.0) == "s"
    fleet.times.unix += 16 * 3600
    assert fleet.chosen(1.0) == "x"


def test_while_the_member_of_the_hour_can_not_answer_another_does() -> None:
    fleet = Fleet(Family((Member("s", "06:00"), Member("gone", "22:00"))))
    assert fleet.chosen(1.0) == "s"


def test_a_part_of_the_day_may_be_a_family_of_sizes() -> None:
    fleet = Fleet(Family((Member("site:sizes", "06:00"), Member("n", "22:00"))))
    inner = replace(
        fleet.alias,
        name="sizes",
        family=replace(SIZES, task="detect", classes=classes_of(version("n"))),
    )
    aliases = {AliasKey("site", "any"): fleet.alias, AliasKey("site", "sizes"): inner}
    versions = dict(fleet.view.desired.versions)
    fleet.view.take_desired(Desired(2, "c", versions, {}, aliases=aliases))
    assert fleet.chosen(1.0) == "n"
    fleet.times.unix += 5 * 3600
    assert fleet.chosen(1.0) == "x"
    fleet.waits(70.0)
    assert fleet.chosen(0.1) == "n"


def test_what_there_is_of_each_member() -> None:
    fleet = Fleet(Family((Member("n"), Member("gone"), Member("s"))), {"n": 3.0})
    looked, until = fleet.chooser.look(fleet.alias)
    assert [(one.loaded, one.is_first) for one in looked] == [(1, True), (0, False), (0, False)]
    assert looked[0].answer_s == pytest.approx(0.008)
    assert [one.answer_s for one in looked[1:]] == [None, None]
    assert until == 0.0
