"""What an observation of the fleet reports: each change once, by the leader of that time."""

from dataclasses import replace

from control_plane.events.transitions import Notice, Observation, Reported, diff
from control_plane.types.command import Blocked
from control_plane.types.event import EventKind
from control_plane.types.lease import FencingToken
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo, WorkerState
from tests.unit.control_plane.fleets import NOW, key, replica, worker

TOKEN = FencingToken(1, 1)
GATHER_S = 3.0
JOINED, LEFT, LOST = EventKind.WORKER_JOINED, EventKind.WORKER_LEFT, EventKind.WORKER_LOST


def look(*workers: WorkerInfo, now: float = NOW, **waits: Blocked) -> Observation:
    by_key = {wait.key: wait for wait in waits.values()}
    return Observation(TOKEN, {one.id: one for one in workers}, by_key, {key("a")}, now)


def begun(*recorded: WorkerInfo) -> Reported:
    return Reported.of(TOKEN, NOW, recorded, None)


def seen(known: Reported, at: Observation) -> tuple[Reported, list[tuple[EventKind, str]]]:
    known, notices = diff(known, at, GATHER_S)
    return known, [(notice.kind, notice.worker) for notice in notices]


def test_workers_come_and_go_once() -> None:
    one, other = worker("w1"), worker("w2")
    known, news = seen(begun(), look(one, other))
    assert news == [(JOINED, "w1"), (JOINED, "w2")]
    known, news = seen(known, look(one, other))
    assert news == []
    known, news = seen(known, look(replace(one, state=WorkerState.LOST)))
    assert news == [(LOST, "w1"), (LEFT, "w2")]
    assert seen(known, look(replace(one, state=WorkerState.LOST)))[1] == []
    assert seen(known, look(one))[1] == [(JOINED, "w1")]


def test_another_process_of_an_id_joins() -> None:
    known, _ = seen(begun(), look(worker("w1")))
    new = replace(worker("w1"), incarnation="w1-2", replaces_because="256 MiB did not come back")
    known, notices = diff(known, look(new), GATHER_S)
    assert [notice.kind for notice in notices] == [JOINED]
    assert "256 MiB" in notices[0].message
    assert known.present == {"w1": "w1-2"}


def test_a_takeover_reports_what_nobody_did() -> None:
    kept, lost, silent, new = (worker(name) for name in ("kept", "lost", "silent", "new"))
    at = look(kept, replace(lost, state=WorkerState.LOST), new)
    known, news = seen(begun(kept, lost, silent), at)
    assert news == [(JOINED, "new"), (LOST, "lost")]
    known, news = seen(known, look(kept, new, now=NOW + GATHER_S - 0.1))
    assert news == []
    known, news = seen(known, look(kept, new, now=NOW + GATHER_S))
    assert news == [(LOST, "silent")]


def test_a_leader_that_leads_again_remembers() -> None:
    known, _ = seen(begun(), look(worker("w1")))
    again = Reported.of(FencingToken(1, 2), NOW + 9, (), known)
    assert seen(again, look(worker("w1")))[1] == []


def failed(known: Reported, at: Observation) -> tuple[Reported, list[Notice]]:
    return diff(known, at, GATHER_S)


def test_a_final_wait_is_told_once_a_change() -> None:
    a: VersionKey = key("a")
    final = Blocked(a, "LOAD_FAILED", "no such layer", final=True, retry_after_s=3.0)
    known, notices = failed(begun(), look(wait=final))
    (notice,) = notices
    assert (notice.kind, notice.version) == (EventKind.VERSION_FAILED, a)
    assert (notice.reason, notice.message) == ("LOAD_FAILED", "no such layer")
    # It is tried again between two waits, and waits with another time left.
    known, notices = failed(known, look())
    assert notices == []
    known, notices = failed(known, look(wait=replace(final, retry_after_s=1.0)))
    assert notices == []
    known, notices = failed(known, look(wait=replace(final, reason="MODEL_TOO_LARGE")))
    assert len(notices) == 1
    # Loaded once, or not wanted any more, it is news again.
    known, _ = failed(known, look(worker("w1", replicas=[replica("a")])))
    known, notices = failed(known, look(wait=final))
    assert [one.kind for one in notices] == [EventKind.WORKER_LEFT, EventKind.VERSION_FAILED]
    # A want that was given up leaves its wait for a while.
    given_up = replace(look(wait=final), wanted=set())
    known, notices = failed(known, given_up)
    assert notices == []
    known, _ = failed(known, replace(look(), wanted=set()))
    assert known.failed == {}


def test_what_may_still_be_loaded_is_no_failure() -> None:
    wait = Blocked(key("a"), "LEDGER_FULL", "every other is in use")
    assert failed(begun(), look(wait=wait))[1] == []
