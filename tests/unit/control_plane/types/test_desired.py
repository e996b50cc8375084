"""Wants: how one follows another, and what a hot standby is wanted for."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control_plane.types.desired import Desired, Want, WantSource
from control_plane.types.policy import Residency, ResidencyMode
from control_plane.types.rollout.alias import WHOLE, Alias, Target
from control_plane.types.rollout.progress import Rollout, RolloutPlan
from control_plane.types.version import VersionKey
from tests.unit.control_plane.fleets import key, version, want, worker

A = key("a")
WANTS = st.builds(
    Want, st.just(A), st.integers(1, 4), st.booleans(), st.sampled_from(WantSource),
    st.floats(0, 100),
)  # fmt: skip
STANDBY = version("a", residency=Residency(ResidencyMode.HOT_STANDBY))


@given(WANTS, WANTS)
def test_a_miss_or_a_prefetch_never_takes_anything_away(new: Want, old: Want) -> None:
    after = new.following(old)
    if new.source is WantSource.PREFETCH:
        assert after == old
    elif new.source is WantSource.MISS and old.source is not WantSource.PREFETCH:
        assert after.replicas == max(new.replicas, old.replicas)
        assert after.pinned is (new.pinned or old.pinned)
        assert (after.source, after.since_unix_s) == (old.source, old.since_unix_s)


@given(WANTS, WANTS)
def test_what_is_asked_for_twice_is_asked_for_once(new: Want, old: Want) -> None:
    after = new.following(old)
    assert new.following(after) == after
    assert new.following(None) == new


@given(WANTS, WANTS)
def test_an_operator_decides_and_keeps_the_age_of_the_want(new: Want, old: Want) -> None:
    new = replace(new, source=WantSource.ADMIN)
    after = new.following(old)
    assert (after.replicas, after.pinned) == (new.replicas, new.pinned)
    if old.source is not WantSource.PREFETCH:
        assert after.since_unix_s == old.since_unix_s


def test_a_hot_standby_is_wanted_and_pinned() -> None:
    alone = Desired(1, "c", {A: STANDBY}, {})
    assert alone.want(A) == Want(A, 1, True, WantSource.ADMIN, STANDBY.created_unix_s)
    missed = Desired(1, "c", {A: STANDBY, key("b"): version("b")}, {A: want("a", replicas=2)})
    found = missed.want(A)
    assert found is not None
    assert (found.pinned, found.replicas) == (True, 2)
    assert missed.want(key("b")) is None
    assert missed.all_wants() == {A: found}


def test_both_versions_of_a_rollout_stay_loaded_until_it_is_settled() -> None:
    rollout = Rollout("r", 1, 2, RolloutPlan(), "ann", "", 0.0, 0.0)
    alias = Alias("a", "stable", (Target(1, WHOLE),), 600.0, 0.0)

    def kept(alias: Alias) -> frozenset[VersionKey]:
        return Desired(1, "c", {}, {}, aliases={alias.key: alias}).kept()

    assert kept(alias) == frozenset()
    assert kept(replace(alias, rollout=rollout)) == {VersionKey("a", 1), VersionKey("a", 2)}
    assert kept(replace(alias, rollout=replace(rollout, settled=True))) == frozenset()


def test_a_cordon_is_of_one_process() -> None:
    desired = Desired(1, "c", {}, {}, {"w": "w-1"})
    assert desired.is_cordoned(worker("w"))
    assert not desired.is_cordoned(replace(worker("w"), incarnation="w-2"))
    assert not desired.is_cordoned(worker("v"))
