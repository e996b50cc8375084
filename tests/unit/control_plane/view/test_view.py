"""The view: what this process wrote is not undone by a read that began before it."""

from dataclasses import replace

from control_plane.clock import Clock
from control_plane.types.desired import Desired
from control_plane.types.version import VersionState
from control_plane.view.view import View
from tests.unit.control_plane.fleets import key, version


def a_view() -> View:
    view = View(Clock(lambda: 0.0, lambda: 0.0))
    view.take_desired(Desired(5, "c", {}, {}))
    return view


def test_a_read_between_two_own_writes_does_not_undo_the_second() -> None:
    view = a_view()
    uploaded, ready = version("a", state=VersionState.UPLOADED), version("a")
    view.put_version(ready)  # registered at 6, adopted at 7
    view.take_desired(Desired(6, "c", {key("a"): uploaded}, {}))
    assert view.desired.versions[key("a")] == ready
    view.take_desired(Desired(7, "c", {key("a"): ready}, {}))
    assert view.desired.versions[key("a")] == ready


def test_a_later_read_is_the_truth() -> None:
    view = a_view()
    view.put_version(version("a"))
    view.take_desired(Desired(7, "c", {}, {}))  # deleted by another
    assert view.desired.versions == {}


def test_a_store_that_began_anew_is_the_truth() -> None:
    view = a_view()
    view.put_version(version("a"))
    view.take_desired(Desired(0, "d", {}, {}))
    assert view.desired.versions == {}


def test_progress_is_never_behind_what_was_written_here() -> None:
    view = a_view()
    half = replace(version("a", state=VersionState.IMPORTING), progress=0.5)
    view.put_version(half)
    view.take_desired(Desired(6, "c", {key("a"): replace(half, progress=0.1)}, {}))
    assert view.desired.versions[key("a")].progress == 0.5
    view.drop_versions((key("a"),))
    view.take_desired(Desired(6, "c", {}, {}))
    assert view.desired.versions == {}
