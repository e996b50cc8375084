"""The life of a replica: every pair of state and event is in the table or raises its story."""

import pytest

from worker.replicas.lifecycle import SERVING, TABLE, ReplicaEvent, ReplicaLife
from yolopool.server.state_machine import InvalidTransition, Life
from yolopool.vocabulary import ReplicaState


def a_life(state: ReplicaState = ReplicaState.ASSIGNED) -> ReplicaLife:
    return Life("m@1", state)


@pytest.mark.parametrize("state", ReplicaState)
@pytest.mark.parametrize("event", ReplicaEvent)
def test_the_table_is_all_there_is(state: ReplicaState, event: ReplicaEvent) -> None:
    life = a_life(state)
    if (state, event) in TABLE:
        assert life.apply(TABLE, event).state is TABLE[state, event]
    else:
        why = f"m@1 is {state} after nothing yet: {event} can't follow"
        with pytest.raises(InvalidTransition, match=why):
            life.apply(TABLE, event)


def test_a_whole_life() -> None:
    life = a_life()
    for event in ["FETCHED", "PROMOTED", "DEMOTED", "PROMOTED", "RELEASE"]:
        life = life.apply(TABLE, ReplicaEvent(event))
    assert life.state is ReplicaState.RELEASING
    with pytest.raises(InvalidTransition, match="after FETCHED, PROMOTED, DEMOTED, PROMOTED"):
        life.apply(TABLE, ReplicaEvent.PROMOTED)


def test_a_failed_load_may_be_tried_again() -> None:
    life = a_life().apply(TABLE, ReplicaEvent.FAIL)
    assert life.apply(TABLE, ReplicaEvent.RETRY).state is ReplicaState.ASSIGNED


def test_every_state_can_be_left_or_ends_it() -> None:
    for state in ReplicaState:
        leaves = any(source is state for source, _ in TABLE)
        assert leaves or state is ReplicaState.RELEASING
    assert ReplicaState.RELEASING not in SERVING
