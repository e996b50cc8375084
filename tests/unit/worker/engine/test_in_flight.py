"""What the device has in flight: when it is free, and what the watchdog sees."""

from worker.engine.in_flight import InFlight


def test_a_device_is_free_at_the_end_of_what_it_has() -> None:
    flight = InFlight()
    assert (flight.free_at(5.0), flight.busy_s(5.0)) == (5.0, 0.0)
    flight.note_batch("a@1", 2, now=5.0, begins=5.0, expected_s=1.0)
    assert (flight.tickets, flight.free_at(5.5), flight.busy_s(5.5)) == (2, 6.0, 0.5)
    # A pass that is overdue is expected to take as long again.
    assert (flight.free_at(6.5), flight.busy_s(6.5)) == (6.5, 0.5)
    flight.pass_began("a@1", 5.1)
    flight.note_batch("b@1", 1, now=5.2, begins=6.0, expected_s=2.0)
    assert (flight.tickets, flight.unfinished, flight.busy_s(5.2)) == (3, 1, 2.8)
    # Earlier than expected: what is left is the other pass.
    flight.pass_ended(2, now=5.4)
    assert (flight.tickets, flight.unfinished, flight.free_at(5.4)) == (1, 0, 7.4)
    flight.failed(1)
    assert (flight.tickets, flight.free_at(5.5)) == (0, 5.5)


def test_the_watchdog_sees_the_device_thread_and_then_what_is_to_be_finished() -> None:
    flight = InFlight()
    assert flight.activity() is None
    flight.note_job(1.0)
    activity = flight.activity()
    assert activity is not None
    assert (activity.what, activity.since, activity.expected_s) == (
        "a load or another job of the device",
        1.0,
        None,
    )
    flight.note_batch("a@1", 1, now=2.0, begins=2.0, expected_s=0.5)
    flight.pass_began("a@1", 2.1)
    flight.note_idle()
    activity = flight.activity()
    assert activity is not None
    assert (activity.what, activity.since, activity.expected_s) == ("a pass of a@1", 2.0, 0.5)
    flight.pass_ended(1, 2.4)
    assert flight.activity() is None
