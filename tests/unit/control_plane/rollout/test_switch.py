"""An alias moves without a gap, whoever carries it on, and lets go what it left."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rollout.switch import (
    DRAIN_S,
    Standing,
    Step,
    begun,
    ended,
    let_go,
    missing,
    step,
)
from control_plane.types.desired import Want, WantChanges, WantSource
from control_plane.types.rollout.alias import (
    WHOLE,
    Alias,
    ChangeKind,
    Kept,
    Shadow,
    Switch,
    Target,
    Targets,
)
from control_plane.types.rollout.progress import Rollout, RolloutPlan
from control_plane.types.version import VersionKey

ADMIN, MISS, ALIAS = WantSource.ADMIN, WantSource.MISS, WantSource.ALIAS
PROMOTE, ROLLBACK, ABANDON = ChangeKind.PROMOTE, ChangeKind.ROLLBACK, ChangeKind.ABANDON
KEEP_S, NOW = 600.0, 1000.0


def only(version: int) -> Targets:
    return (Target(version, WHOLE),)


def want(version: int, replicas: int = 1, source: WantSource = ADMIN, pinned: bool = False) -> Want:
    return Want(VersionKey("shapes", version), replicas, pinned, source, 1.0)


def standing(*wants: Want, **facts: object) -> Standing:
    """With wants, and replicas as `loaded` says."""
    known = {one.key.number: one for one in wants}
    return Standing(wants=known, **facts)  # type: ignore[arg-type] # its fields


def a_switch(
    to: Targets, now: float = NOW, kind: ChangeKind = PROMOTE, within_s: float = 60.0
) -> Switch:
    return Switch(to, kind, "ann", "because", now, now + within_s, "order")


STABLE = Alias("shapes", "stable", only(1), KEEP_S, 0.0, 1)


def put(found: Step | None) -> dict[int, tuple[int, WantSource, bool]]:
    """The wants that a step sets: replicas, source and pin by version."""
    assert found is not None
    return {one.key.number: (one.replicas, one.source, one.pinned) for one in found.wants.put}


def dropped(found: Step | WantChanges) -> set[int]:
    wants = found.wants if isinstance(found, Step) else found
    return {key.number for key in wants.drop}


# --- the order of things ------------------------------------------------------------------------


def test_the_new_version_is_wanted_as_the_old_one_is_and_nothing_moves_yet() -> None:
    now = standing(want(1, 3), loaded={1: 3})
    first = begun(STABLE, a_switch(only(2)), now, force=False)
    assert first.alias is not None
    assert first.alias.targets == only(1)
    assert put(first) == {2: (3, ALIAS, False)}
    # Part of it is loaded: it waits.
    held = first.alias
    loading = standing(want(1, 3), want(2, 3, ALIAS), loaded={1: 3, 2: 2})
    assert step(held, loading, NOW + 1) is None
    assert missing(held, a_switch(only(2)), loading) == {2: 1}


def test_it_moves_when_as_many_are_loaded_and_keeps_what_it_left() -> None:
    held = replace(STABLE, switch=a_switch(only(2)))
    done = step(held, standing(want(1, 3), want(2, 3, ALIAS), loaded={1: 3, 2: 3}), NOW + 5)
    assert done is not None
    assert done.alias is not None
    assert (done.alias.targets, done.alias.switch) == (only(2), None)
    assert done.alias.kept == (Kept(1, NOW + 5 + KEEP_S, 3, ADMIN),)
    assert done.alias.previous == only(1)
    assert done.alias.changed_unix_s == NOW + 5
    change = done.alias.history[-1]
    assert (change.kind, change.by, change.why) == (PROMOTE, "ann", "because")
    assert put(done) == {1: (3, ALIAS, False)}
    assert not done.wants.drop


def test_what_was_kept_long_enough_goes_and_its_want_is_the_new_ones() -> None:
    kept = replace(STABLE, targets=only(2), kept=(Kept(1, NOW, 2, ADMIN),))
    now = standing(want(1, 5, ALIAS), want(2, 5, ALIAS), loaded={1: 5, 2: 5})
    assert step(kept, now, NOW - 0.1) is None
    last = step(kept, now, NOW)
    assert last is not None
    assert last.alias is not None
    assert last.alias.kept == ()
    assert dropped(last) == {1}
    assert last.wants.end_standby == last.wants.drop
    # Copies that autoscaling had made are its own again.
    assert put(last) == {2: (2, ADMIN, False)}


def test_nothing_is_waited_for_where_the_old_one_is_not_loaded_either() -> None:
    done = begun(STABLE, a_switch(only(2)), standing(), force=False)
    assert done.alias is not None
    assert done.alias.targets == only(2)
    assert put(done) == {}


def test_the_old_ones_that_are_lost_are_not_waited_for_but_wanted() -> None:
    """Three are wanted and two fit: two are enough to move, as two serve now."""
    held = replace(STABLE, switch=a_switch(only(2)))
    now = standing(want(1, 3), loaded={1: 2})
    assert missing(held, a_switch(only(2)), now) == {2: 2}
    assert put(step(held, now, NOW)) == {2: (3, ALIAS, False)}
    away = standing(want(1, 3))
    assert missing(held, a_switch(only(2)), away) == {2: 3}


def test_force_moves_at_once() -> None:
    done = begun(STABLE, a_switch(only(2)), standing(want(1), loaded={1: 1}), force=True)
    assert done.alias is not None
    assert done.alias.targets == only(2)
    assert put(done) == {1: (1, ALIAS, False), 2: (1, ALIAS, False)}


def test_a_pinned_version_is_followed_by_one_on_its_device() -> None:
    held = replace(STABLE, switch=a_switch(only(2)))
    wants = want(1, pinned=True), want(2, 1, ALIAS, pinned=True)
    warm = standing(*wants, loaded={1: 1, 2: 1}, hot={1: 1})
    assert missing(held, a_switch(only(2)), warm) == {2: 1}
    hot = replace(warm, hot={1: 1, 2: 1})
    done = step(held, hot, NOW)
    # What is kept for a rollback takes no device memory for certain.
    assert put(done) == {1: (1, ALIAS, False)}


@pytest.mark.parametrize(
    ("share", "old", "needed"), [(50, 1, 1), (50, 4, 1), (500, 4, 2), (501, 4, 3), (1000, 4, 4)]
)
def test_a_canary_has_replicas_by_its_weight(share: int, old: int, needed: int) -> None:
    to = (Target(2, share),) if share == WHOLE else (Target(1, WHOLE - share), Target(2, share))
    lacking = missing(STABLE, a_switch(to), standing(want(1, old), loaded={1: old}))
    assert lacking == {2: needed}


def test_canary_of_versions_that_stay_settles_at_once() -> None:
    """Nothing is left, so nothing is kept: the canary's want becomes an ordinary one."""
    to = (Target(1, 900), Target(2, 100))
    held = replace(STABLE, switch=a_switch(to))
    now = standing(want(1), want(2, 1, ALIAS), loaded={1: 1, 2: 1})
    done = step(held, now, NOW)
    assert done is not None
    assert done.alias is not None
    assert done.alias.kept == ()
    assert put(step(done.alias, now, NOW)) == {2: (1, ADMIN, False)}
    settled = standing(want(1), want(2), loaded={1: 1, 2: 1})
    assert step(done.alias, settled, NOW) is None


# --- what prevents it ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "later_s", "says"),
    [
        ({"hopeless": {2: "was deleted"}}, 0.0, "shapes@2 was deleted"),
        ({"waits": {2: "no room"}}, 60.0, "was not loaded in 60 s: no room"),
        ({}, 60.0, "still being loaded"),
    ],
)
def test_a_switch_that_can_not_be_is_given_up(
    facts: Mapping[str, object], later_s: float, says: str
) -> None:
    held = replace(STABLE, switch=a_switch(only(2)))
    now = standing(want(1), want(2, 1, ALIAS), loaded={1: 1}, **facts)
    found = step(held, now, NOW + later_s)
    assert found is not None
    assert found.alias is not None
    assert (found.alias.targets, found.alias.switch) == (only(1), None)
    change = found.alias.history[-1]
    assert change.kind == ABANDON
    assert says in change.why
    assert dropped(found) == {2}


@pytest.mark.parametrize("own", [ADMIN, MISS])
def test_what_is_wanted_for_itself_stays_when_a_switch_is_given_up(own: WantSource) -> None:
    held = replace(STABLE, switch=a_switch(only(2)))
    now = standing(want(1), want(2, 1, own), hopeless={2: "was deleted"})
    found = step(held, now, NOW)
    assert found is not None
    assert dropped(found) == set()


def test_another_order_takes_the_place_of_a_switch() -> None:
    held = replace(STABLE, switch=a_switch(only(2)))
    now = standing(want(1), want(2, 1, ALIAS), loaded={1: 1})
    found = begun(held, a_switch(only(3), NOW + 5), now, force=False)
    assert found.alias is not None
    assert found.alias.switch == a_switch(only(3), NOW + 5)
    assert found.alias.history[-1].kind == ABANDON
    assert dropped(found) == {2}
    assert put(found) == {3: (1, ALIAS, False)}


def test_a_want_that_was_ended_meanwhile_is_set_again() -> None:
    held = replace(STABLE, switch=a_switch(only(2)))
    found = step(held, standing(want(1, 2), loaded={1: 2}), NOW + 1)
    assert found is not None
    assert found.alias is None
    assert put(found) == {2: (2, ALIAS, False)}


# --- back, and again ----------------------------------------------------------------------------


def test_back_at_once_while_the_old_one_is_kept() -> None:
    now = standing(want(1, 2, ALIAS), want(2, 2, ALIAS), loaded={1: 2, 2: 2})
    alias = replace(STABLE, targets=only(2), kept=(Kept(1, NOW + KEEP_S, 2, ADMIN),))
    done = begun(alias, a_switch(only(1), kind=ROLLBACK), now, force=False)
    assert done.alias is not None
    assert done.alias.targets == only(1)
    # What was rolled back from drains, and its predecessor gets its own want back.
    assert done.alias.kept == (Kept(2, NOW + DRAIN_S, 2, ADMIN),)
    later = step(done.alias, now, NOW + DRAIN_S)
    assert later is not None
    assert dropped(later) == {2}
    assert put(later) == {1: (2, ADMIN, False)}


def test_of_many_promotions_in_a_row_the_newest_is_kept_and_the_others_drain() -> None:
    now = standing(*(want(n, 1, ALIAS) for n in (1, 2, 3)), loaded={1: 1, 2: 1, 3: 1})
    alias = replace(STABLE, targets=only(2), kept=(Kept(1, NOW + KEEP_S, 4, ADMIN),))
    done = begun(alias, a_switch(only(3)), now, force=False)
    assert done.alias is not None
    assert done.alias.kept == (
        Kept(1, NOW + DRAIN_S, 4, ADMIN),
        Kept(2, NOW + KEEP_S, 4, ADMIN),
    )
    first = step(done.alias, now, NOW + DRAIN_S)
    assert first is not None
    assert (dropped(first), put(first)) == ({1}, {})
    assert first.alias is not None
    last = step(first.alias, now, NOW + KEEP_S)
    assert (dropped(last or Step()), put(last)) == ({2}, {3: (4, ADMIN, False)})


# --- others -------------------------------------------------------------------------------------


def test_a_version_that_another_alias_means_is_not_let_go() -> None:
    held = replace(STABLE, switch=a_switch(only(2)))
    both = standing(
        want(1), want(2), loaded={1: 1, 2: 1}, named=frozenset({1}), served=frozenset({1})
    )
    done = step(held, both, NOW)
    assert put(done) == {}
    assert done is not None
    assert done.alias is not None
    later = step(done.alias, both, NOW + KEEP_S)
    assert later is not None
    assert (dropped(later), put(later)) == (set(), {})


def test_two_aliases_that_left_one_version_both_let_it_go() -> None:
    """Each keeps it; with the last of them it goes."""
    kept = replace(STABLE, targets=only(2), kept=(Kept(1, NOW, 1, ADMIN),))
    now = standing(want(1, 1, ALIAS), want(2))
    first = step(kept, replace(now, named=frozenset({1})), NOW)
    assert first is not None
    assert dropped(first) == set()
    second = step(kept, now, NOW)
    assert second is not None
    assert dropped(second) == {1}


def test_a_kept_version_that_callers_name_themselves_becomes_an_ordinary_one() -> None:
    kept = replace(STABLE, targets=only(2), kept=(Kept(1, NOW, 3, ADMIN),))
    found = step(kept, standing(want(1, 3, ALIAS), want(2), in_use=frozenset({1})), NOW)
    assert put(found) == {1: (1, MISS, False)}


def test_a_kept_version_that_an_operator_loaded_stays() -> None:
    kept = replace(STABLE, targets=only(2), kept=(Kept(1, NOW, 1, ADMIN),))
    found = step(kept, standing(want(1, 2, ADMIN), want(2)), NOW)
    assert found is not None
    assert (dropped(found), put(found)) == (set(), {})


def test_an_alias_that_goes_leaves_no_want_behind() -> None:
    alias = replace(
        STABLE,
        targets=only(2),
        switch=a_switch(only(3)),
        kept=(Kept(1, NOW + KEEP_S, 2, MISS),),
    )
    now = standing(want(1, 1, ALIAS), want(2, 1, ALIAS), want(3, 1, ALIAS))
    wants = ended(alias, now)
    assert dropped(wants) == {1, 3}
    assert {one.key.number: (one.replicas, one.source) for one in wants.put} == {2: (2, MISS)}
    back = replace(alias, switch=a_switch(only(1)))  # to what it keeps
    assert dropped(ended(back, replace(now, wants={1: now.wants[1], 2: now.wants[2]}))) == {1}


# --- beside a rollout ----------------------------------------------------------------------------


ROLLOUT = Rollout("r", 1, 2, RolloutPlan(), "ann", "", NOW, NOW)


def test_both_versions_of_a_rollout_stay_when_nothing_keeps_them_for_a_rollback_any_more() -> None:
    last = replace(STABLE, targets=only(2), kept=(Kept(1, NOW, 1, ADMIN),), rollout=ROLLOUT)
    now = standing(want(1, 1, ALIAS), want(2))
    found = step(last, now, NOW)
    assert found is not None
    assert dropped(found) == set()
    over = step(replace(last, rollout=replace(ROLLOUT, settled=True)), now, NOW)
    assert over is not None
    assert dropped(over) == {1}


def test_a_switch_that_is_given_up_leaves_the_candidate_to_its_rollout() -> None:
    alias = replace(STABLE, switch=a_switch(only(2)), rollout=ROLLOUT)
    now = standing(want(1), want(2, 1, ALIAS), hopeless={2: "was deleted"})
    found = step(alias, now, NOW)
    assert found is not None
    assert dropped(found) == set()


def test_a_rollout_lets_go_what_nothing_else_needs() -> None:
    alias = replace(STABLE, rollout=ROLLOUT, shadow=Shadow(2, 50))
    only_compared = standing(want(1), want(2, 1, ALIAS))
    assert {key.number for key in let_go(alias, ROLLOUT, only_compared)} == {2}
    assert not let_go(alias, ROLLOUT, standing(want(1), want(2, 1, ADMIN)))
    # Who moved the alias there themselves waits for it; another alias means it.
    assert not let_go(replace(alias, switch=a_switch(only(2))), ROLLOUT, only_compared)
    assert not let_go(alias, ROLLOUT, replace(only_compared, named=frozenset({2})))


def test_an_alias_that_goes_in_a_rollout_leaves_no_want_behind() -> None:
    alias = replace(STABLE, rollout=ROLLOUT, shadow=Shadow(2, 50))
    assert dropped(ended(alias, standing(want(1), want(2, 1, ALIAS)))) == {2}
    last = replace(alias, targets=only(2), kept=(Kept(1, NOW + KEEP_S, 1, ADMIN),))
    wants = ended(last, standing(want(1, 1, ALIAS), want(2, 1, ALIAS)))
    assert dropped(wants) == {1}


# --- any sequence of orders, losses and leaders -------------------------------------------------


@dataclass
class Pool:
    """A fleet of one model: what is wanted is loaded, one replica a tick, unless a load hangs."""

    alias: Alias = STABLE
    wants: dict[int, Want] = field(default_factory=lambda: {1: want(1, 2)})
    loaded: dict[int, int] = field(default_factory=lambda: {1: 2})
    stuck: set[int] = field(default_factory=set)
    now: float = NOW

    def standing(self) -> Standing:
        return Standing(dict(self.loaded), dict(self.loaded), dict(self.wants))

    def take(self, found: Step | None) -> None:
        if found is None:
            return
        for one in found.wants.put:
            self.wants[one.key.number] = one
        for key in found.wants.drop:
            self.wants.pop(key.number, None)
        if found.alias is not None and found.alias.targets != self.alias.targets:
            self.check_no_gap(found.alias)
        self.alias = found.alias or self.alias

    def check_no_gap(self, new: Alias) -> None:
        """As many replicas as before, by weight, and what was left is still there."""
        most = max(self.loaded.get(one.version, 0) for one in self.alias.targets)
        for target in new.targets:
            assert self.loaded.get(target.version, 0) * WHOLE >= most * target.weight
        for target in self.alias.targets:
            if self.loaded.get(target.version, 0):
                assert target.version in self.wants

    def order(self, version: int, kind: ChangeKind) -> None:
        to = self.alias.previous if kind is ROLLBACK else only(version)
        if to and to != self.alias.targets:
            switch = a_switch(to, self.now, kind)
            self.take(begun(self.alias, switch, self.standing(), force=False))

    def tick(self) -> None:
        self.now += 1.0
        for version, one in self.wants.items():
            there = self.loaded.get(version, 0)
            if there < one.replicas and version not in self.stuck:
                self.loaded[version] = there + 1
        for version in list(self.loaded):
            if version not in self.wants:
                del self.loaded[version]
        self.take(step(self.alias, self.standing(), self.now))


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("promote"), st.integers(1, 5)),
        st.tuples(st.just("rollback"), st.just(0)),
        st.tuples(st.just("lose"), st.integers(1, 5)),
        st.tuples(st.just("hang"), st.integers(2, 5)),
        st.tuples(st.just("tick"), st.integers(1, 80)),
    ),
    max_size=25,
)


@given(ACTIONS)
def test_whatever_is_ordered_there_is_no_gap_and_nothing_stays_behind(
    actions: list[tuple[str, int]],
) -> None:
    pool = Pool()
    for verb, number in actions:
        match verb:
            case "promote":
                pool.order(number, PROMOTE)
            case "rollback":
                pool.order(0, ROLLBACK)
            case "lose":  # a worker is gone
                pool.loaded.pop(number, None)
            case "hang":
                pool.stuck ^= {number}
            case _:
                for _ in range(number):
                    pool.tick()
        assert sum(target.weight for target in pool.alias.targets) == WHOLE
    pool.stuck = set()
    for _ in range(int(2 * KEEP_S) + 100):
        pool.tick()
    assert pool.alias.switch is None
    assert pool.alias.kept == ()
    (target,) = pool.alias.targets
    # What was wanted of the first is wanted of the last, and of no other.
    left = {number: (one.replicas, one.source) for number, one in pool.wants.items()}
    assert left == {target.version: (2, ADMIN)}
    assert pool.loaded == {target.version: 2}
