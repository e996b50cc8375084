"""The tables of versions and workers, names that people may use, and failures with back-off."""

import itertools

import pytest

from control_plane.types.lifecycle import (
    SAID,
    VERSION_TABLE,
    WORKER_TABLE,
    VersionEvent,
    WorkerEvent,
    WorkerLife,
)
from control_plane.types.version import VersionState
from control_plane.types.worker import WorkerState
from control_plane.view.catalogue import Catalogue
from control_plane.view.load_backoff import LAST_RETRY_S, LoadBackoff
from tests.unit.control_plane.fleets import key, version
from yolopool import errors
from yolopool.names import parse_ref
from yolopool.server.state_machine import InvalidTransition, Life


def test_a_version_ends_ready_or_failed() -> None:
    for state, event in itertools.product(VersionState, VersionEvent):
        if state in (VersionState.READY, VersionState.FAILED):
            assert (state, event) not in VERSION_TABLE
    assert VERSION_TABLE[VersionState.IMPORTING, VersionEvent.CLAIMED] is VersionState.IMPORTING


def test_a_lost_worker_may_be_heard_again_and_no_other_goes_back() -> None:
    for state in SAID:
        assert WORKER_TABLE[WorkerState.LOST, SAID[state]] is state
    assert (WorkerState.READY, WorkerEvent.SAID_STARTING) not in WORKER_TABLE
    assert (WorkerState.DRAINING, WorkerEvent.SAID_READY) not in WORKER_TABLE


def test_a_wrong_step_tells_the_story() -> None:
    life: WorkerLife = Life("w1", WorkerState.STARTING)
    for event in (WorkerEvent.SAID_READY, WorkerEvent.SAID_READY, WorkerEvent.SAID_DRAINING):
        life = life.apply(WORKER_TABLE, event)
    assert life.story == (WorkerEvent.SAID_READY, WorkerEvent.SAID_DRAINING)
    with pytest.raises(InvalidTransition, match="w1 is DRAINING after SAID_READY, SAID_DRAINING"):
        life.apply(WORKER_TABLE, WorkerEvent.SAID_READY)


def catalogue(*states: VersionState) -> Catalogue:
    from dataclasses import replace

    versions = {
        key("team/shapes", n): replace(
            version("x", state=state),
            key=key("team/shapes", n),
            reason="ARTIFACT_UNSAFE",
            message="it runs code",
        )
        for n, state in enumerate(states, 1)
    }
    return Catalogue(versions.values())


READY, FAILED, IMPORTING = VersionState.READY, VersionState.FAILED, VersionState.IMPORTING


def test_a_bare_name_means_the_newest_ready_version() -> None:
    models = catalogue(READY, READY, FAILED, IMPORTING)
    assert models.ready(parse_ref("team/shapes")).key.number == 2
    assert models.ready(parse_ref("team/shapes@1")).key.number == 1
    assert [v.key.number for v in models.versions(parse_ref("team/shapes"))] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("reference", "kind", "says"),
    [
        ("team/shapes@4", errors.ModelNotReady, "IMPORTING"),
        ("team/shapes@3", errors.ModelImportFailed, "ARTIFACT_UNSAFE: it runs code"),
        ("team/shapes@9", errors.VersionNotFound, "4, 3, 2, 1"),
        ("team/shapes:live", errors.AliasNotFound, "team/shapes@<version>"),
        ("team/shape", errors.ModelNotFound, "did you mean team/shapes"),
        ("nothing", errors.ModelNotFound, "list the models"),
    ],
)
def test_what_can_not_be_resolved_says_why(
    reference: str, kind: type[errors.YolopoolError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        catalogue(READY, READY, FAILED, IMPORTING).ready(parse_ref(reference))
    assert says in caught.value.message


def test_a_model_with_no_ready_version_says_where_its_newest_stands() -> None:
    with pytest.raises(errors.ModelImportFailed):
        catalogue(FAILED).ready(parse_ref("team/shapes"))
    with pytest.raises(errors.ModelNotReady):
        catalogue(FAILED, IMPORTING).ready(parse_ref("team/shapes"))
    with pytest.raises(errors.ModelNotFound, match="none is registered"):
        catalogue().ready(parse_ref("shapes"))


def test_failed_loads_are_tried_later_and_later() -> None:
    failures, place = LoadBackoff(), ("w1", key("a"))
    waits = [failures.record(place, "LOAD_FAILED", "no", 0.0).retry_at_s for _ in range(10)]
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LAST_RETRY_S
    failures.succeeded(place)
    assert failures.current == {}
    assert failures.record(place, "LOAD_FAILED", "no", 0.0).retry_at_s == 1.0


def test_failures_go_with_their_worker_and_on_request() -> None:
    failures = LoadBackoff()
    before = failures.current
    failures.note(("w1", key("a")), "", "seen in its inventory", 0.0)
    failures.note(("w1", key("a")), "", "seen again", 9.0)
    failures.refuse(("w2", key("a")), "LEDGER_FULL", "not now", 3.0)
    assert before == {}
    assert failures.current["w1", key("a")].message == "seen in its inventory"
    failures.forget_worker("w1")
    assert list(failures.current) == [("w2", key("a"))]
    failures.forget_version(key("a"))
    assert failures.current == {}
