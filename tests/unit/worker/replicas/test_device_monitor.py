"""Upkeep: budgets shrink for others and come back, drift is what stays, notes are read whole."""

from pathlib import Path

from worker.backends.base import DeviceMemory
from worker.process import hot_restart
from worker.process.hot_restart import RestartNote
from worker.replicas.device_monitor import LOOKS, LeakDetector, budget_bytes
from yolopool.v1 import types_pb2, worker_pb2


def test_a_budget_is_as_configured_while_others_leave_room() -> None:
    assert budget_bytes(1000, 1000, DeviceMemory(200, 5000, 4000)) == 1000


def test_a_budget_shrinks_to_what_is_used_and_free_and_comes_back() -> None:
    assert budget_bytes(1000, 1000, DeviceMemory(200, 5000, 300)) == 500
    assert budget_bytes(1000, 500, DeviceMemory(200, 5000, 900)) == 1000


def test_a_budget_does_not_follow_every_page() -> None:
    assert budget_bytes(1000, 500, DeviceMemory(200, 5000, 305)) == 500
    assert budget_bytes(1000, 995, DeviceMemory(200, 5000, 900)) == 1000


def test_drift_is_what_is_there_at_every_look() -> None:
    drift = LeakDetector()
    for _ in range(LOOKS - 1):
        assert drift.look(150, 100) is None  # not yet
    assert drift.look(150, 100) == 50
    assert drift.look(120, 100) == 20
    assert drift.look(900, 100) == 20  # a pass, or a large image
    assert drift.look(90, 100) == 0
    for _ in range(LOOKS):
        last = drift.look(130, 100)
    assert last == 30


def a_note(beside: bool = True) -> RestartNote:
    order = worker_pb2.AssignRequest(
        version=types_pb2.VersionKey(model="team/a", version=3),
        settings=types_pb2.VersionSettings(image_size=320, confidence=0.25),
        pack=worker_pb2.PackLocation(uri="file:///p", digest="d" * 64),
        pin=True,
    )
    token = types_pb2.FencingToken(epoch=2**60, counter=7)
    return RestartNote("100 bytes did not come back", beside, token, (order,))


def test_a_note_is_read_as_it_was_written_until_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "note.json"
    assert hot_restart.read(path) is None
    hot_restart.write(path, a_note())
    assert hot_restart.exists(path)
    assert hot_restart.read(path) == a_note()
    hot_restart.write(path, a_note(beside=False))
    assert hot_restart.read(path) == a_note(beside=False)
    hot_restart.done(path)
    hot_restart.done(path)
    assert hot_restart.read(path) is None
    assert list(path.parent.iterdir()) == []


def test_a_note_that_can_t_be_read_is_none(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    for text in ("", "{", "[]", '{"why": "x"}', '{"why":"x","beside":1,"token":[],"orders":3}'):
        path.write_text(text)
        assert hot_restart.read(path) is None
    hot_restart.clear(path)
    assert not path.exists()
    assert hot_restart.read(None) is None
