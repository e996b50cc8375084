"""The pools that a request names, found in every message that has a placement."""

import pytest
from google.protobuf.message import Message

from control_plane.identity.placements import pools_in
from yolopool.v1 import detection_pb2, model_pb2, schedule_pb2, types_pb2

NORTH = types_pb2.Placement(pool="north")
BY_LABEL = types_pb2.Placement(labels={"pool": "south", "zone": "a"})
LOADS = [
    model_pb2.LoadModelRequest(model="a", placement=NORTH),
    model_pb2.LoadModelRequest(model="b", placement=BY_LABEL),
]


@pytest.mark.parametrize(
    ("request_", "pools"),
    [
        (model_pb2.SetPlacementRequest(model="a", placement=NORTH), {"north"}),
        (model_pb2.SetPlacementRequest(model="a", placement=BY_LABEL), {"south"}),
        (model_pb2.RegisterModelRequest(name="a", placement=NORTH), {"north"}),
        (LOADS[0], {"north"}),
        (model_pb2.ChangeoverRequest(prepare=LOADS), {"north", "south"}),
        (
            schedule_pb2.SetScheduleRequest(
                schedule=schedule_pb2.Schedule(change=model_pb2.ChangeoverRequest(prepare=LOADS))
            ),
            {"north", "south"},
        ),
        (model_pb2.LoadModelRequest(model="a"), set()),
        (model_pb2.LoadModelRequest(placement=types_pb2.Placement(max_replicas=2)), set()),
        (detection_pb2.DetectRequest(model="a"), set()),
    ],
)
def test_pools_are_found_wherever_they_are(request_: Message, pools: set[str]) -> None:
    assert pools_in(request_) == pools
