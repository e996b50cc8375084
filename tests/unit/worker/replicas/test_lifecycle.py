"""The life of a replica: every pair of state and event is in the table or raises its story."""

import pytest

from worker.replicas.lifecycle import (
    SERVING,
    TABLE,
    InvalidTransition,
    Life,
    ReplicaEvent,
    ReplicaState,
)


@pytest.mark.parametrize("state", ReplicaState)
@pytest.mark.parametrize("event", ReplicaEvent)
def test_the_table_is_all_there_is(state: ReplicaState, event: ReplicaEvent) -> None:
    life = Life("m@1", state)
    if (state, event) in TABLE:
        assert life.apply(event).state is TABLE[state, event]
    else:
        with pytest.raises(InvalidTransition, match=f"m@1 is {state} after nothing: no {event}"):
            life.apply(event)


def test_a_whole_life() -> None:
    life = Life("m@1")
    for event in ["FETCHED", "PROMOTED", "DEMOTED", "PROMOTED", "RELEASE"]:
        life = life.apply(ReplicaEvent(event))
    assert life.state is ReplicaState.RELEASING
    with pytest.raises(InvalidTransition, match="after FETCHED, PROMOTED, DEMOTED, PROMOTED"):
        life.apply(ReplicaEvent.PROMOTED)


def test_a_failed_load_may_be_tried_again() -> None:
    life = Life("m@1").apply(ReplicaEvent.FAIL)
    assert life.apply(ReplicaEvent.RETRY).state is ReplicaState.ASSIGNED


def test_every_state_can_be_left_or_ends_it() -> None:
    for state in ReplicaState:
        leaves = any(source is state for source, _ in TABLE)
        assert leaves or state is ReplicaState.RELEASING
    assert ReplicaState.RELEASING not in SERVING
