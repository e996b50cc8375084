"""One alert from the first look that finds its condition to its end."""

from dataclasses import replace

from control_plane.types.alerts.alert_state import (
    ENDED_KEPT_S,
    AlertState,
    Look,
    Stage,
    Told,
    due,
    looked,
)

KEY = ("YolopoolQueueLong", "w1")
HOLDS, ENDED, UNKNOWN = Look.HOLDS, Look.ENDED, Look.UNKNOWN


def course(
    *looks: tuple[float, Look], for_s: float = 10.0, before: AlertState | None = None
) -> AlertState | None:
    for now, look in looks:
        before = looked(before, look, KEY, 11.0, 10.0, for_s, now)
    return before


def fired(**more: object) -> AlertState:
    state = course((0.0, HOLDS), (10.0, HOLDS))
    assert state is not None
    return replace(state, **more)  # type: ignore[arg-type] # fields of a state


def test_it_fires_once_its_condition_has_held_long_enough() -> None:
    for now, stage in ((0.0, Stage.PENDING), (9.9, Stage.PENDING), (10.0, Stage.FIRING)):
        state = course((0.0, HOLDS), (now, HOLDS))
        assert state is not None
        assert state.stage is stage
    assert (fired().since_unix_s, fired().fired_unix_s) == (0.0, 10.0)
    at_once = course((5.0, HOLDS), for_s=0.0)
    assert at_once is not None
    assert at_once.stage is Stage.FIRING


def test_a_condition_that_ends_too_soon_is_no_alert() -> None:
    assert course((0.0, HOLDS), (9.0, ENDED)) is None
    again = course((0.0, HOLDS), (9.0, ENDED), (9.5, HOLDS), (12.0, HOLDS))
    assert again is not None
    assert again.stage is Stage.PENDING


def test_it_ends_and_the_next_time_is_another() -> None:
    ended = course((20.0, ENDED), before=fired())
    assert ended is not None
    assert (ended.stage, ended.resolved_unix_s) == (Stage.RESOLVED, 20.0)
    assert ended.id == fired().id
    again = course((30.0, HOLDS), before=ended)
    assert again is not None
    assert again.stage is Stage.PENDING
    assert again.id != ended.id
    assert not again.told
    assert course((20.0 + ENDED_KEPT_S, ENDED), before=ended) is None


def test_what_is_not_known_changes_nothing() -> None:
    for state in (None, fired(), fired().resolved(20.0)):
        assert course((1e6, UNKNOWN), before=state) is state


def test_one_that_was_ended_by_hand_waits_for_its_condition_to_end() -> None:
    held = fired().resolved(20.0, "ann")
    still = course((30.0, HOLDS), (1e6, HOLDS), before=held)
    assert still is not None
    assert (still.stage, still.by) == (Stage.RESOLVED, "ann")
    again = course((40.0, ENDED), (41.0, HOLDS), (51.0, HOLDS), before=held)
    assert again is not None
    assert (again.stage, again.since_unix_s, again.by) == (Stage.FIRING, 41.0, "")


def test_who_is_told_what() -> None:
    told = {"ops": Told.FIRING, "chat": Told.TRIED}
    assert due(fired(), "ops") is Told.FIRING
    assert due(fired(told=told), "ops") is None
    assert due(fired(told=told), "chat") is Told.FIRING
    ended = fired(told=told).resolved(20.0)
    assert [due(ended, name) for name in ("ops", "chat", "new")] == [
        Told.RESOLVED, Told.RESOLVED, None,
    ]  # fmt: skip
    assert due(ended.notified("ops", Told.RESOLVED), "ops") is None
    pending = course((0.0, HOLDS))
    assert pending is not None
    assert due(pending, "ops") is None
