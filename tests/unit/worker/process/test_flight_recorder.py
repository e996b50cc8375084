"""What a process had in hand, read after its end."""

import tempfile

from worker.process import flight_recorder
from worker.process.flight_recorder import SLOTS, FlightRecorder


def test_what_is_in_hand_is_there_and_what_was_is_not() -> None:
    with tempfile.TemporaryFile() as file:
        recorder = FlightRecorder(file.fileno(), "incarnation")
        with recorder.recording("a"), recorder.recording("b" * 128):
            with recorder.recording("gone"):
                pass
            assert flight_recorder.read(file) == ("incarnation", ("a", "b" * 128))
        assert flight_recorder.read(file) == ("incarnation", ())


def test_a_sealed_one_keeps_what_it_has() -> None:
    with tempfile.TemporaryFile() as file:
        recorder = FlightRecorder(file.fileno(), "incarnation")
        with recorder.recording("a"):
            recorder.seal()
        with recorder.recording("b"):
            assert flight_recorder.read(file)[1] == ("a",)


def test_beyond_its_slots_it_notes_no_more_and_fails_nobody() -> None:
    with tempfile.TemporaryFile() as file:
        recorder = FlightRecorder(file.fileno(), "incarnation")
        held = [recorder.recording(f"r{number}") for number in range(SLOTS + 10)]
        for one in held:
            one.__enter__()
        assert len(flight_recorder.read(file)[1]) == SLOTS - 1
        for one in held:
            one.__exit__(None, None, None)
        assert flight_recorder.read(file)[1] == ()


def test_one_that_noted_nothing_is_empty_and_nobody_has_to_read_it() -> None:
    with tempfile.TemporaryFile() as file:
        assert flight_recorder.read(file) == ("", ())
    with FlightRecorder(0, "incarnation").recording("a"):
        pass
