"""What a worker may say when it joins."""

import pytest

from control_plane.convert.validation import check_worker
from yolopool.errors import InvalidWorker
from yolopool.v1 import fleet_pb2


def joining(labels: int) -> fleet_pb2.Worker:
    """With so many labels of its user, and that of its compute class."""
    given = {f"label{number}": "x" for number in range(labels)}
    return fleet_pb2.Worker(
        id="w1",
        incarnation="i",
        address="127.0.0.1:5",
        device="cpu",
        device_kind="cpu",
        labels={**given, "compute-class": "amx"},
    )


def test_the_label_that_a_worker_adds_takes_none_of_its_users() -> None:
    assert check_worker(joining(64)) == joining(64)
    with pytest.raises(InvalidWorker, match="more than 65 labels"):
        check_worker(joining(65))
