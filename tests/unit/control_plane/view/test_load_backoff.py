"""Failed loads and when each may be retried."""

from control_plane.view.load_backoff import LAST_RETRY_S, LoadBackoff
from tests.unit.control_plane.fleets import key


def test_failed_loads_are_tried_later_and_later() -> None:
    failures, place = LoadBackoff(), ("w1", key("a"))
    waits = [failures.record(place, "LOAD_FAILED", "no", 0.0).retry_at_s for _ in range(10)]
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LAST_RETRY_S
    failures.succeeded(place)
    assert failures.current == {}
    assert failures.record(place, "LOAD_FAILED", "no", 0.0).retry_at_s == 1.0


def test_failures_go_with_their_worker_and_on_request() -> None:
    failures = LoadBackoff()
    before = failures.current
    failures.note(("w1", key("a")), "", "seen in its inventory", 0.0)
    failures.note(("w1", key("a")), "", "seen again", 9.0)
    failures.refuse(("w2", key("a")), "LEDGER_FULL", "not now", 3.0)
    assert before == {}
    assert failures.current["w1", key("a")].message == "seen in its inventory"
    failures.forget_worker("w1")
    assert list(failures.current) == [("w2", key("a"))]
    failures.forget_version(key("a"))
    assert failures.current == {}
