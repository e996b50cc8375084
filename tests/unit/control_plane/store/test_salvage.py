"""What a store that lost a part is filled with."""

from dataclasses import replace
from typing import Any

import pytest

from control_plane.store.salvage import PARTS, Remains, lacking, salvaged
from control_plane.store.transaction import ImportJob
from control_plane.types.access.api_key import ApiKey, Role, SecretHash
from control_plane.types.access.tenant import Tenant
from control_plane.types.alerts.alert_setting import Silence
from control_plane.types.desired import Desired, Want, WantSource
from control_plane.types.policy import ModelRule
from control_plane.types.rollout.alias import Alias, Target
from control_plane.types.sources.watch import Watch
from control_plane.types.version import ModelVersion, VersionKey, VersionState
from tests.unit.control_plane.fleets import key, version, want

A, B = version("a"), version("b", state=VersionState.UPLOADED)
WANTED = Want(A.key, 2, True, WantSource.ADMIN, 1.0)
KEY = ApiKey("k", "cameras", "", Role.DETECT, ("*",), (SecretHash("00", "11"),), 1.0)
STABLE = Alias("a", "stable", (Target(1, 1000),), 600.0, 1.0, 1)
QUIET = Silence("s1", "*", "a", 9e9)
COPY = Desired(
    5,
    "one",
    {A.key: A, B.key: B},
    {A.key: WANTED},
    {"w1": "i1"},
    {},
    {"a": 1, "b": 1},
    {"k": KEY},
    {"north": Tenant("north", ("a",))},
    {STABLE.key: STABLE},
    {"a": ModelRule("a", keep_versions=3)},
    {"w": Watch("w", "s3://bucket/m/", "a")},
    {QUIET.key: QUIET},
    "five",
)
WHOLE = Remains(
    COPY.cluster, COPY.revision, COPY.mark, COPY.versions, COPY.wants, COPY.cordons,
    COPY.schedules, COPY.numbers, COPY.api_keys, COPY.tenants, COPY.aliases,
    COPY.rules, COPY.watches, COPY.alerts, {B.key: ImportJob(3)},
)  # fmt: skip


def without(*parts: str, **changes: Any) -> Remains:
    changes |= dict.fromkeys(parts)
    return replace(WHOLE, **changes)


def test_nothing_is_written_where_nothing_is_lost() -> None:
    for copy in (COPY, None, replace(COPY, cluster="other"), replace(COPY, numbers={"a": 9})):
        found = salvaged(WHOLE, copy)
        assert found is not None
        assert found.written == ()


@pytest.mark.parametrize("part", PARTS)
def test_a_lost_part_comes_from_the_copy_and_the_others_stay(part: str) -> None:
    newer = replace(WHOLE, revision=9, mark="nine", cordons={"w1": "i2"})
    lost: dict[str, Any] = {part: None}
    found = salvaged(replace(newer, **lost), COPY)
    assert found is not None
    if getattr(COPY, part, True):  # an empty part is as it was
        assert found.written == (part,)
    assert found.desired.revision == 10
    assert found.desired.cordons == ({"w1": "i1"} if part == "cordons" else {"w1": "i2"})
    assert found.desired.versions == COPY.versions
    assert found.jobs.keys() == {B.key}


def test_without_a_copy_only_the_queue_can_be_made_anew() -> None:
    found = salvaged(without("jobs"), None)
    assert found is not None
    assert found.written == ("jobs",)
    assert found.jobs.keys() == {B.key}
    for part in PARTS[:-1]:
        assert salvaged(without(part), None) is None
        assert salvaged(without(part), replace(COPY, cluster="other")) is None
    assert salvaged(Remains(), None) is None


def test_all_is_lost_and_comes_from_the_copy() -> None:
    found = salvaged(Remains(), COPY)
    assert found is not None
    assert found.desired == replace(COPY, revision=6, mark="")
    assert found.jobs.keys() == {B.key}


def test_what_is_left_of_a_store_without_its_id_is_kept() -> None:
    newer = version("c")
    found = salvaged(Remains(versions={newer.key: newer}), COPY)
    assert found is not None
    assert found.desired.versions == {newer.key: newer}
    assert found.desired.wants == {}  # the version that it was of is gone
    assert found.desired.cluster == "one"


def test_a_number_is_the_highest_that_anyone_knows() -> None:
    late = replace(A, key=VersionKey("a", 7))
    build = replace(A, key=VersionKey("a+onnx-fp32-cpu", 7))
    versions: dict[VersionKey, ModelVersion] = {late.key: late, build.key: build}
    late_copy = replace(COPY, revision=4, numbers={"gone": 4})
    found = salvaged(without("numbers", versions=versions), late_copy)
    assert found is not None
    assert found.desired.numbers == {"a": 7, "b": 1, "gone": 4}


def test_a_want_of_a_version_that_the_copy_lacks_is_dropped() -> None:
    found = salvaged(without("versions", wants={key("new"): want("new"), A.key: WANTED}), COPY)
    assert found is not None
    assert found.desired.wants == {A.key: WANTED}
    assert set(found.written) == {"versions", "wants"}


def test_a_job_is_kept_for_whom_it_is_and_made_for_whom_it_lacks() -> None:
    held = ImportJob(3, "i1", 9.0)
    found = salvaged(without("versions", jobs={B.key: held, A.key: ImportJob(1)}), COPY)
    assert found is not None
    assert found.jobs == {B.key: held}


def test_less_than_a_copy_of_the_same_revision_is_a_loss() -> None:
    assert lacking(COPY, COPY) == ()
    less = replace(COPY, versions={A.key: A}, numbers={})
    assert lacking(less, COPY) == ("versions", "numbers")
    assert lacking(replace(less, revision=6), COPY) == ()
    assert lacking(replace(less, mark="other"), COPY) == ()
    found = salvaged(without(versions={A.key: A}), COPY)
    assert found is not None
    assert found.desired.versions == COPY.versions
