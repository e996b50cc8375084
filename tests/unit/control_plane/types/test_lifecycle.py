"""The state machines of versions and workers."""

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
