"""A call on a thread of its own: its answer, its error, and that neither keeps what it used."""

import gc
import threading
import weakref

import pytest

from worker.concurrency.own_thread import on_own_thread


class Memory:
    """What a load holds."""


def test_the_answer_comes_from_another_thread_which_has_ended() -> None:
    thread = on_own_thread(threading.current_thread)
    assert thread.name == "load"
    assert not thread.is_alive()


def test_an_error_is_raised_here_and_holds_nothing_once_it_is_handled() -> None:
    held: list[weakref.ref[Memory]] = []

    def fail() -> None:
        memory = Memory()
        held.append(weakref.ref(memory))
        raise ValueError("own")

    gc.disable()
    try:
        with pytest.raises(ValueError, match="own") as caught:
            on_own_thread(fail)
        del caught
        assert [one() for one in held] == [None], "without the collector of cycles"
    finally:
        gc.enable()
