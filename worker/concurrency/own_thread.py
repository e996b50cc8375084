"""Runs a call on a thread of its own, which ends with it: the call may lower its priority."""

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

Answer = TypeVar("Answer")


def on_own_thread(call: Callable[[], Answer]) -> Answer:
    """Waits for the answer; raises what the call raises. The watchdog counts the thread as one that
    loads, by its name.
    """
    answers: list[Answer] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            answers.append(call())
        except Exception as error:
            errors.append(error)

    thread = Thread(target=run, name="load", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors.pop()  # not by a name: its frames would hold it, and it these frames
    return answers.pop()
