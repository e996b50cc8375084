"""What an alias means, whose keys stick to which version, and where a rollback goes."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.types.rollout.alias import (
    HISTORY_KEPT,
    WHOLE,
    Alias,
    AliasChange,
    AliasKey,
    ChangeKind,
    Kept,
    Shadow,
    Switch,
    Target,
    Targets,
    naming,
    point_for,
    point_of,
)
from control_plane.types.rollout.family import Family, Member
from control_plane.types.version import VersionKey
from yolopool.names import parse_ref


def only(version: int) -> Targets:
    return (Target(version, WHOLE),)


ALIAS = Alias("shapes", "stable", only(1), 600.0, 0.0)


def after(*changes: tuple[ChangeKind, int]) -> Alias:
    """The alias after it moved so, from version 1 on."""
    alias = ALIAS
    for kind, version in changes:
        change = AliasChange(0.0, kind, "", "", alias.targets, only(version))
        alias = replace(alias, targets=only(version)).noted(change)
    return alias


SET, PROMOTE, STEP, BACK, ABANDON = (
    ChangeKind.SET, ChangeKind.PROMOTE, ChangeKind.STEP, ChangeKind.ROLLBACK, ChangeKind.ABANDON
)  # fmt: skip


@pytest.mark.parametrize(
    ("moves", "previous"),
    [
        ([], ()),
        ([(PROMOTE, 2)], only(1)),
        ([(PROMOTE, 2), (PROMOTE, 3)], only(2)),
        ([(PROMOTE, 2), (PROMOTE, 3), (BACK, 2)], only(1)),
        ([(PROMOTE, 2), (PROMOTE, 3), (BACK, 2), (BACK, 1)], ()),
        ([(PROMOTE, 2), (BACK, 1), (PROMOTE, 3)], only(1)),
        ([(SET, 2), (STEP, 3), (STEP, 4)], only(1)),  # over all steps of one promotion
        ([(SET, 2), (STEP, 3), (BACK, 1)], ()),
        ([(PROMOTE, 2), (ABANDON, 2)], only(1)),
        ([(PROMOTE, 2), (SET, 2)], only(1)),  # a change that changed nothing
    ],
)
def test_a_rollback_goes_where_the_last_promotion_came_from(
    moves: list[tuple[ChangeKind, int]], previous: Targets
) -> None:
    assert after(*moves).previous == previous


def test_the_history_is_bounded_and_keeps_the_newest() -> None:
    alias = after(*[(PROMOTE, n) for n in range(2, 2 * HISTORY_KEPT)])
    assert len(alias.history) == HISTORY_KEPT
    assert alias.history[-1].after == alias.targets
    assert alias.previous == only(2 * HISTORY_KEPT - 2)


WEIGHTS = st.lists(st.integers(1, 999), min_size=1, max_size=5).map(
    lambda cuts: tuple(
        Target(number, right - left)
        for number, (left, right) in enumerate(
            zip([0, *sorted(set(cuts))], [*sorted(set(cuts)), WHOLE], strict=True), 1
        )
    )
)


@given(WEIGHTS)
def test_of_a_thousand_points_each_version_has_its_weight(targets: Targets) -> None:
    alias = replace(ALIAS, targets=targets)
    drawn = [alias.drawn(point) for point in range(WHOLE)]
    assert {target.version: drawn.count(target.version) for target in targets} == {
        target.version: target.weight for target in targets
    }
    assert max(targets, key=lambda one: one.weight).version == alias.main


@given(st.lists(st.integers(0, WHOLE), min_size=2, max_size=6).map(sorted))
def test_who_saw_the_canary_sees_it_while_it_grows(shares: list[int]) -> None:
    def canary(share: int) -> set[int]:
        alias = replace(ALIAS, targets=(Target(1, WHOLE - share), Target(2, share)))
        return {point for point in range(WHOLE) if alias.drawn(point) == 2}

    for less, more in pairwise(shares):
        assert canary(less) <= canary(more)


def test_keys_lie_where_they_lay_in_every_release() -> None:
    key = AliasKey("shapes", "stable")
    # If these change, callers change sides in the middle of a rollout.
    points = [point_of(key, name) for name in ("", "a", "camera-7", "Ünïcode")]
    assert points == [384, 118, 825, 98]
    assert point_of(AliasKey("shapes", "next"), "a") != point_of(key, "a")


def test_keys_are_spread_evenly() -> None:
    points = [point_of(ALIAS.key, f"camera-{n}") for n in range(20_000)]
    in_canary = sum(point >= 950 for point in points)
    assert 850 < in_canary < 1150  # 5 % of them, within five standard deviations


def test_a_request_without_an_alias_has_no_point_and_draws_nothing() -> None:
    def never() -> float:
        raise AssertionError

    assert point_for(parse_ref("shapes@3"), "key", never) is None
    assert point_for(parse_ref("shapes:stable"), "a", never) == point_of(ALIAS.key, "a")
    assert point_for(parse_ref("shapes:stable"), "", lambda: 0.9999) == WHOLE - 1
    # A build is chosen as its model is.
    of_build = point_for(parse_ref("shapes+onnx-fp32-cpu:stable"), "a", never)
    assert of_build == point_of(ALIAS.key, "a")


def test_a_target_keeps_its_place() -> None:
    alias = replace(ALIAS, targets=(Target(5, 900), Target(2, 100)))
    new = (Target(1, 10), Target(2, 490), Target(5, 500))
    assert alias.ordered(new) == (Target(5, 500), Target(2, 490), Target(1, 10))


def test_who_needs_a_version() -> None:
    switch = Switch(only(4), PROMOTE, "", "", 0.0, 1.0, "order")
    alias = replace(ALIAS, switch=switch, kept=(Kept(3, 1.0),), shadow=Shadow(6, 10))
    other = replace(ALIAS, name="next", targets=only(4))
    aliases = {one.key: one for one in (alias, other, replace(ALIAS, model="parts"))}
    assert alias.versions == {1, 3, 4, 6}
    assert naming(aliases, VersionKey("shapes", 4)) == (other.key, alias.key)
    assert naming(aliases, VersionKey("shapes", 3)) == (alias.key,)
    assert naming(aliases, VersionKey("shapes", 2)) == ()
    assert naming(aliases, VersionKey("parts", 1)) == (AliasKey("parts", "stable"),)


def test_an_order_is_known_by_its_id() -> None:
    switch = Switch(only(4), PROMOTE, "", "", 0.0, 1.0, "now")
    done = AliasChange(0.0, SET, "", "", (), only(1), "done")
    alias = replace(ALIAS, switch=switch).noted(done)
    assert alias.has_order("now")
    assert alias.has_order("done")
    assert not alias.has_order("other")
    assert not alias.has_order("")


def test_a_family_needs_the_versions_that_it_names_by_number() -> None:
    members = (Member("shapes@4"), Member("bolts"))
    family = Alias("site", "any", (), 600.0, 0.0, family=Family(members))
    aliases = {family.key: family}
    assert naming(aliases, VersionKey("shapes", 4)) == (family.key,)
    assert naming(aliases, VersionKey("shapes", 3)) == ()
    assert naming(aliases, VersionKey("bolts", 1)) == ()
    assert family.previous == ()
    assert family.versions == frozenset()
