"""Restart notes: read whole or not at all."""

from pathlib import Path

from worker.process import hot_restart
from worker.process.hot_restart import RestartNote
from yolopool.v1 import types_pb2, worker_pb2


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
    assert path.exists()
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
