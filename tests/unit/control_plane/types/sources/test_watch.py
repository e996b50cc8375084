import json
from dataclasses import replace

from control_plane.store.sources.watch_codec import decode_watch, encode_watch
from control_plane.types.sources.watch import Watch

WATCH = Watch("w", "s3://b/m/", "parts", by="me", created_unix_s=1.0)
LOOKED = WATCH.noted({"a.pt": "1", "b.pt": "1"}, {"a.pt", "b.pt"})


def test_what_is_gone_is_forgotten() -> None:
    assert LOOKED.begun
    assert LOOKED.noted({"b.pt": "2"}, {"b.pt"}).seen == {"b.pt": "2"}


def test_a_watch_that_is_set_again_keeps_what_it_saw() -> None:
    asked = replace(WATCH, every_s=60.0, by="other", created_unix_s=2.0)
    kept = LOOKED.asking(asked)
    assert (kept.every_s, kept.seen, kept.begun, kept.by) == (60.0, LOOKED.seen, True, "me")


def test_another_folder_or_model_begins_anew() -> None:
    for asked in (replace(WATCH, uri="s3://b/other/"), replace(WATCH, model="bolts")):
        assert LOOKED.asking(asked) == asked


def test_a_look_that_succeeds_ends_the_error() -> None:
    assert replace(LOOKED, error="SOURCE_UNAVAILABLE: gone").noted({}, {"a.pt"}).error == ""


def test_a_watch_is_read_as_it_was_written_and_what_a_newer_release_added_is_passed_over() -> None:
    assert decode_watch(encode_watch(LOOKED)) == LOOKED
    newer = json.dumps({**json.loads(encode_watch(LOOKED)), "depth": 3})
    assert decode_watch(newer) == LOOKED
