"""Heartbeats of a stream: an unchanged part keeps its object, a changed one is decoded."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control_plane.convert.heartbeat import HeartbeatDecoder
from control_plane.convert.workers import worker_in
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo, WorkerState
from control_plane.view.view import View
from tests.unit.control_plane.fleets import key
from yolopool.server.clock import Clock
from yolopool.v1 import fleet_pb2, types_pb2
from yolopool.vocabulary import ReplicaState

HOT, WARM = types_pb2.REPLICA_STATE_HOT, types_pb2.REPLICA_STATE_WARM


def a_replica(name: str, **fields: object) -> types_pb2.Replica:
    return types_pb2.Replica(
        version=types_pb2.VersionKey(model=name, version=1),
        variant=types_pb2.Variant(backend="torch", precision="fp32"),
        footprint=types_pb2.Footprint(weights_bytes=7, max_batch=4),
        pack="p",
        **{"state": HOT, **fields},  # type: ignore[arg-type] # any field
    )


def message_of(*replicas: types_pb2.Replica, incarnation: str = "i1") -> fleet_pb2.Worker:
    return fleet_pb2.Worker(
        id="w1",
        incarnation=incarnation,
        state=fleet_pb2.WORKER_STATE_READY,
        ledger=types_pb2.Ledger(budget_bytes=100),
        load=types_pb2.LoadReport(sequence=1),
        replicas=replicas,
    )


JOINED = worker_in(message_of(), 0.0)


def test_an_unchanged_replica_keeps_its_object() -> None:
    decoder = HeartbeatDecoder()
    first = decoder.read(message_of(a_replica("a"), a_replica("b")), 1.0, JOINED)
    again = decoder.read(message_of(a_replica("a"), a_replica("b", outstanding=2)), 2.0, JOINED)
    assert again.replicas[key("a")] is first.replicas[key("a")]
    assert again.ledger is first.ledger
    changed, was = again.replicas[key("b")], first.replicas[key("b")]
    assert (changed.outstanding, was.outstanding) == (2, 0)
    assert changed.footprint is was.footprint
    assert (first.lease_until_s, again.lease_until_s) == (1.0, 2.0)


def test_a_replica_that_changed_its_place_keeps_its_parts() -> None:
    decoder = HeartbeatDecoder()
    first = decoder.read(message_of(a_replica("a"), a_replica("b")), 1.0, JOINED)
    moved = decoder.read(message_of(a_replica("b"), a_replica("c")), 2.0, JOINED)
    assert list(moved.replicas) == [key("b"), key("c")]
    assert moved.replicas[key("b")] == first.replicas[key("b")]
    assert moved.replicas[key("b")].footprint is first.replicas[key("b")].footprint
    again = decoder.read(message_of(a_replica("b"), a_replica("c")), 3.0, JOINED)
    assert all(again.replicas[held] is moved.replicas[held] for held in moved.replicas)


def test_changed_parts_are_decoded() -> None:
    decoder = HeartbeatDecoder()
    decoder.read(message_of(a_replica("a")), 1.0, JOINED)
    other = a_replica("a", state=WARM)
    other.footprint.weights_bytes = 8
    other.variant.precision = "fp16"
    read = decoder.read(message_of(other), 1.0, JOINED).replicas[key("a")]
    assert read.footprint is not None
    assert (read.footprint.weights_bytes, read.variant) == (8, "torch/fp16")
    other.ClearField("footprint")
    assert decoder.read(message_of(other), 1.0, JOINED).replicas[key("a")].footprint is None


messages = st.lists(
    st.lists(
        st.builds(
            a_replica,
            st.sampled_from("abc"),
            outstanding=st.integers(0, 2),
            state=st.sampled_from([HOT, WARM, types_pb2.REPLICA_STATE_FAILED]),
        ),
        max_size=3,
        unique_by=lambda replica: replica.version.model,
    ),
    max_size=6,
)


@given(messages, st.sampled_from(["i1", "i2"]))
def test_a_stream_decodes_to_the_same_as_each_message_alone(
    drawn: list[list[types_pb2.Replica]], last: str
) -> None:
    decoder = HeartbeatDecoder()
    for n, replicas in enumerate(drawn):
        message = message_of(*replicas, incarnation=last if n == len(drawn) - 1 else "i1")
        read = decoder.read(message, float(n), JOINED)
        assert read == worker_in(message, float(n), JOINED)


@given(messages)
def test_the_view_indexes_the_replicas_that_serve(drawn: list[list[types_pb2.Replica]]) -> None:
    view, decoder = View(Clock(lambda: 0.0, lambda: 0.0)), HeartbeatDecoder()
    view.join(JOINED, None)
    for replicas in drawn:
        worker = decoder.read(message_of(*replicas), 1e9, JOINED)
        view.apply_heartbeat(worker, None)
        assert set(view.holders) == set(worker.replicas)
        hot = {key for key, holders in view.holders.items() if holders.hot}
        assert hot == in_state(worker, ReplicaState.HOT)
        warm = {key for key, holders in view.holders.items() if holders.warm}
        assert warm == in_state(worker, ReplicaState.WARM)
    view.leave("w1", "i1")
    assert view.holders == {}


def in_state(worker: WorkerInfo, state: ReplicaState) -> set[VersionKey]:
    return {key for key, replica in worker.replicas.items() if replica.state is state}


def test_a_draining_worker_is_not_routed_to() -> None:
    view = View(Clock(lambda: 0.0, lambda: 0.0))
    ready = worker_in(message_of(a_replica("a")), 10.0)
    view.join(ready, None)
    assert [id_ for _, id_ in view.holders[key("a")].hot] == ["w1"]
    view.apply_heartbeat(replace(ready, state=WorkerState.DRAINING), None)
    assert not view.holders[key("a")].hot
    assert list(view.holders[key("a")]) == ["w1"]
