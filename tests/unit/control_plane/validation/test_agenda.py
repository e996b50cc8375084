"""Which version is evaluated next."""

from dataclasses import replace

from control_plane.types.desired import Desired
from control_plane.types.policy import Gate, ModelRule, Validation
from control_plane.types.version import ModelVersion, VersionKey, VersionState
from control_plane.validation.agenda import Case, due
from control_plane.view.catalogue import Catalogue
from tests.unit.control_plane.fleets import key, version

GATE = Gate("zip", 0.5)


def of(name: str, number: int, created: float = 1.0, **more: object) -> ModelVersion:
    made = replace(version(name), key=key(name, number), created_unix_s=created)
    return replace(made, **more)  # type: ignore[arg-type]


def next_of(
    *versions: ModelVersion, backed_off: dict[Case, float] | None = None
) -> VersionKey | None:
    rules = {name: ModelRule(name, GATE) for name in ("a", "b")}
    known = {one.key: one for one in versions}
    desired = Desired(1, "c", known, {}, rules=rules)
    found = due(desired, Catalogue(known.values()).models, backed_off or {}, 10.0)
    return found[0].key if found is not None else None


DONE = Validation("zip", 1.0, map50_95=0.1)
OLD = Validation("other", 1.0, map50_95=0.9)


def test_the_newest_of_each_model_comes_first_and_of_two_models_the_older_wait() -> None:
    assert next_of(of("a", 1), of("a", 2)) == key("a", 2)
    assert next_of(of("a", 1, 1.0), of("a", 2, 5.0), of("b", 1, 4.0)) == key("b", 1)
    assert next_of(of("a", 1, 1.0), of("a", 2, validation=DONE), of("b", 1, 4.0)) == key("b", 1)


def test_what_is_evaluated_or_has_no_gate_or_is_not_ready_does_not_wait() -> None:
    assert next_of(of("a", 1, validation=DONE)) is None
    assert next_of(of("c", 1)) is None
    assert next_of(of("a", 1, state=VersionState.IMPORTING)) is None
    assert next_of() is None


def test_other_images_mean_evaluating_again() -> None:
    assert next_of(of("a", 1, validation=OLD)) == key("a", 1)


def test_one_that_failed_to_be_evaluated_waits_and_lets_others_go() -> None:
    off = {(key("a", 2), "zip"): 11.0}
    assert next_of(of("a", 1), of("a", 2), backed_off=off) == key("a", 1)
    off = {(key("a", 2), "zip"): 9.0, (key("a", 1), "another zip"): 99.0}
    assert next_of(of("a", 1), of("a", 2), backed_off=off) == key("a", 2)
