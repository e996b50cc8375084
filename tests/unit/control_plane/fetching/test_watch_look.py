"""A watch takes what is new and finished, once, whatever writers do between two looks."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from control_plane.fetching.watch_look import Waiting, look, matching
from control_plane.sources.remote_file import Found
from control_plane.types.sources.watch import Watch

NEW = Watch("w", "file:///models/", "parts", settle_s=5.0)
BEGUN = Watch("w", "file:///models/", "parts", settle_s=5.0, begun=True)


def found(name: str, stamp: str = "1", at: float = 0.0) -> Found:
    return Found(name, f"file:///models/{name}", stamp, at)


def test_only_files_of_the_pattern_count() -> None:
    files = [
        found(name) for name in ("a.pt", "b.onnx", "c.txt", ".a.pt.swp", ".hidden.pt", "d.pt.part")
    ]
    assert [file.name for file in matching(NEW, files)] == ["a.pt", "b.onnx"]
    narrow = Watch("w", "u", "m", patterns=("best-*.pt",))
    assert matching(narrow, [found("best-1.pt"), found("last-1.pt")]) == [found("best-1.pt")]


def test_the_first_look_takes_the_newest_alone() -> None:
    files = [found("new.pt", at=9.0), found("old.pt", at=1.0), found("older.pt")]
    first = look(NEW, files, {}, 100.0)
    assert first.passed_over == {"old.pt": "1", "older.pt": "1"}
    assert first.new == ()
    begun = NEW.noted(first.passed_over, {file.name for file in files})
    second = look(begun, files, first.waiting, 105.0)
    assert [file.name for file in second.new] == ["new.pt"]
    assert second.waiting == {}


def test_a_file_that_is_written_is_waited_for() -> None:
    waiting: dict[str, Waiting] = {}
    for at in range(0, 30, 2):  # it grows with each look
        seen = look(BEGUN, [found("a.pt", stamp=f"{at}")], waiting, float(at))
        assert seen.new == ()
        waiting = dict(seen.waiting)
    assert look(BEGUN, [found("a.pt", "28")], waiting, 32.9).new == ()
    assert look(BEGUN, [found("a.pt", "28")], waiting, 33.0).new == (found("a.pt", "28"),)


def test_a_known_file_is_news_only_when_it_changed() -> None:
    known = BEGUN.noted({"a.pt": "1"}, {"a.pt"})
    assert look(known, [found("a.pt")], {"a.pt": Waiting("1", 0.0)}, 100.0).new == ()
    changed = look(known, [found("a.pt", "2")], {}, 100.0)
    assert changed.waiting == {"a.pt": Waiting("2", 100.0)}


def test_several_new_files_come_in_the_order_of_their_age() -> None:
    files = [found("c.pt", at=3.0), found("a.pt", at=2.0), found("b.pt", at=1.0)]
    waiting = look(BEGUN, files, {}, 0.0).waiting
    assert [one.name for one in look(BEGUN, files, waiting, 5.0).new] == ["b.pt", "a.pt", "c.pt"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=30), st.booleans())
def test_no_state_of_a_file_is_taken_twice(writes: list[tuple[str, int]], begun: bool) -> None:
    """Writers change files at random between looks; each (file, stamp) is registered at most once,
    and what rests long enough is registered or passed over.
    """
    watch, waiting = (BEGUN if begun else NEW), dict[str, Waiting]()
    disk: dict[str, int] = {}
    taken: list[tuple[str, str]] = []
    for step, (name, stamp) in enumerate([*writes, *[("", 0)] * 4]):
        if name:
            disk[name] = stamp
        files = [found(f"{one}.pt", f"{stamp}", float(stamp)) for one, stamp in disk.items()]
        seen = look(watch, files, waiting, step * 6.0)
        taken += [(one.name, one.stamp) for one in seen.new]
        known = {**seen.passed_over, **{one.name: one.stamp for one in seen.new}}
        watch = watch.noted(known, {one.name for one in files})
        waiting = dict(seen.waiting)
    last = {name: f"{stamp}" for name, stamp in disk.items()}
    assert watch.seen == {f"{name}.pt": stamp for name, stamp in last.items()}
    for name in last:
        stamps = [stamp for one, stamp in taken if one == f"{name}.pt"]
        assert all(before != after for before, after in pairwise(stamps))
