"""Placement: which workers it allows; batching as it is stored; gates; versions that are kept."""

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.types.policy import (
    BatchingConfig,
    Gate,
    GateState,
    ModelRule,
    Placement,
    Validation,
    batching_of,
    kept_versions,
)
from yolopool.errors import ValidationFailed, ValidationPending

LABELS = st.dictionaries(st.sampled_from(["pool", "site", "gpu"]), st.sampled_from("xy"))


@given(LABELS, LABELS)
def test_a_worker_is_allowed_if_it_has_all_that_is_asked_for(
    asked: dict[str, str], has: dict[str, str]
) -> None:
    placement = Placement(asked.get("pool", ""), {k: v for k, v in asked.items() if k != "pool"})
    assert placement.allows(has) is (asked.items() <= has.items())
    assert placement.requires == ", ".join(f"{name}={asked[name]}" for name in sorted(asked))


def test_a_record_of_a_newer_release_is_read() -> None:
    config = BatchingConfig(8, (1, 4), 2.0, 64, True)
    stored = {**asdict(config), "preferred_sizes": [1, 4], "of_a_newer_release": 1}
    assert batching_of(stored) == config
    assert batching_of({}) == BatchingConfig()


GATE = Gate("zip", min_map50_95=0.6, min_map50=0.8, since_unix_s=100.0)


def did(map50_95: float, map50: float = 0.9, data: str = "zip", reason: str = "") -> Validation:
    return Validation(data, 1.0, 10, 20, map50, map50_95, reason)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (None, GateState.PENDING),
        (did(0.9, data="other"), GateState.PENDING),
        (did(0.6, 0.8), GateState.PASSED),
        (did(0.5999), GateState.FAILED),
        (did(0.9, 0.79), GateState.FAILED),
        (did(0.9, reason="INVALID_OPTION"), GateState.FAILED),
    ],
)
def test_a_gate_is_passed_by_both_precisions_on_its_own_images(
    found: Validation | None, state: GateState
) -> None:
    assert GATE.state(found) is state
    if state is GateState.PASSED:
        GATE.check("a@1", found)
        return
    with pytest.raises((ValidationPending, ValidationFailed)) as caught:
        GATE.check("a@1", found)
    assert caught.value.reason == f"VALIDATION_{state}"
    assert "a@1" in caught.value.message


def test_a_failure_says_by_how_much_and_why() -> None:
    assert GATE.shortfall(did(0.5, 0.7)) == (
        "fails its gate: mAP50-95 0.5000, at least 0.6; mAP50 0.7000, at least 0.8"
    )
    assert "INVALID_OPTION" in GATE.shortfall(did(0.0, reason="INVALID_OPTION"))


def test_the_bare_name_passes_over_what_failed_and_what_is_new_and_unknown() -> None:
    assert GATE.holds_back(None, 100.0)
    assert not GATE.holds_back(None, 99.0)
    assert GATE.holds_back(did(0.1), 1.0)
    assert not GATE.holds_back(did(0.9), 1000.0)
    # What was found on earlier images counts until it is evaluated on these.
    assert not GATE.holds_back(did(0.9, data="other"), 1000.0)
    assert GATE.holds_back(did(0.1, data="other"), 1.0)


def test_the_longest_pattern_says_how_many_are_kept() -> None:
    rules = [ModelRule("*", keep_versions=9), ModelRule("team/*", keep_versions=3)]
    rules += [ModelRule("team/a", keep_versions=1), ModelRule("team/a*", store_bytes=5)]
    assert [kept_versions(rules, name) for name in ("team/a", "team/b", "c")] == [1, 3, 9]
    assert kept_versions(rules[3:], "team/a") == 0
    assert kept_versions(rules, "team/a+onnx-fp32-cpu") == 1


def test_a_rule_that_says_nothing_is_known_as_such() -> None:
    assert ModelRule("a").says_nothing
    assert not ModelRule("a", gate=GATE).says_nothing
    assert not ModelRule("a", keep_versions=1).says_nothing
