"""Suspects: passed over, probed by one at a time, cleared by a word."""

from control_plane.view.circuit_breaker import PROBE_AFTER_S, CircuitBreaker

NOW = 100.0


def test_who_stood_still_is_passed_over_until_it_is_heard() -> None:
    suspects = CircuitBreaker()
    assert not suspects.open_for(NOW)
    suspects.trip("i1", NOW)
    assert set(suspects.open_for(NOW)) == {"i1"}
    suspects.reset("i1")
    assert not suspects.open_for(NOW)
    assert len(suspects) == 0


def test_after_a_while_one_request_may_probe_it() -> None:
    suspects = CircuitBreaker()
    suspects.trip("i1", NOW)
    later = NOW + PROBE_AFTER_S
    assert not suspects.open_for(later)
    suspects.sent("i1")
    assert set(suspects.open_for(later)) == {"i1"}
    suspects.ended("i1")  # its caller left
    assert not suspects.open_for(later)
    suspects.sent("i1")
    suspects.trip("i1", later)
    suspects.ended("i1")
    assert set(suspects.open_for(later)) == {"i1"}
    assert not suspects.open_for(later + PROBE_AFTER_S)


def test_nobody_becomes_a_suspect_by_being_sent_to() -> None:
    suspects = CircuitBreaker()
    suspects.sent("i1")
    suspects.ended("i1")
    assert not suspects.open_for(NOW)
