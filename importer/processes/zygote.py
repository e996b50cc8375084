"""The program of a prepared parent: imports the libraries once, and forks a child for each import.

No byte of a user comes in here: a request is descriptors, of which the child reads its order after
the fork. It holds no key, has one thread, and starts nothing but forks. `forked_child` is its other
side, and says what they tell each other.
"""

import errno
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from importer import job, sandbox
from yolopool.server import process
from yolopool.server.parent_death import die_with_parent

# The order, what the child says, its errors, and where its number and its end are told.
DESCRIPTORS = 4
NUMBER = struct.Struct("=i")


@dataclass(slots=True)
class _Child:
    pid: int
    handle: int  # readable when it has ended
    told: socket.socket  # at its end when nobody wants the child any more
    is_wanted: bool = True


def main(run: Callable[[], int] = job.main) -> int:
    """Prepares, says so, and forks until the importer ends; a child ends with the status of `run`.
    Raises RuntimeError where a fork would not be safe.
    """
    die_with_parent()
    os.nice(19)
    channel = socket.socket(fileno=int(sys.argv[1]))
    os.close(os.pidfd_open(os.getpid()))  # or OSError: without it, a child can't be waited for
    process.begin()
    job.import_libraries()
    process.settle()  # of what is frozen no child copies a page to look for garbage
    _check_alone()
    channel.send(NUMBER.pack(os.getpid()))
    serve(channel, run)
    return 0


def serve(channel: socket.socket, run: Callable[[], int]) -> None:
    """Forks until the channel ends. Children that are left end with this process."""
    children: list[_Child] = []
    while True:
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        for child in children:
            poll.register(child.handle, select.POLLIN)
            if child.is_wanted:
                poll.register(child.told, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll()}
        for child in children[:]:
            if child.handle in ready:
                _bury(child)
                children.remove(child)
            elif child.told.fileno() in ready:
                _end(child)
        if channel.fileno() in ready:
            message, given, _, _ = socket.recv_fds(channel, 1, DESCRIPTORS)
            if not message:
                return
            forked = _fork(given, channel, run)
            children += [forked] if forked else []


def _fork(given: Sequence[int], channel: socket.socket, run: Callable[[], int]) -> _Child | None:
    """None where this machine, or this process, has no room for a child, which is told."""
    if len(given) != DESCRIPTORS:  # the rest found no room here
        for descriptor in given:
            os.close(descriptor)
        return None
    *stdio, report = given
    told = socket.socket(fileno=report)
    parent, pid = os.getpid(), 0
    _check_alone()
    try:
        pid = os.fork()
        if pid == 0:
            channel.detach()
            told.detach()
            _become(stdio, parent, run)
        handle = os.pidfd_open(pid)
        _tell(told, pid)
        return _Child(pid, handle, told)
    except OSError as error:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        _tell(told, -(error.errno or errno.EAGAIN))
        told.close()
        return None
    finally:
        for descriptor in stdio:
            os.close(descriptor)


def _become(stdio: Sequence[int], parent: int, run: Callable[[], int]) -> NoReturn:
    """In the child: gives up all that is the parent's and of its other children, and runs."""
    status = 1
    try:
        os.setsid()
        sandbox.die_with_parent()
        if os.getppid() != parent:
            os._exit(status)
        for number, descriptor in enumerate(stdio):
            os.dup2(descriptor, number)
        os.closerange(len(stdio), os.sysconf("SC_OPEN_MAX"))
        job.seed_anew()
        status = run()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not sys.exit: what the parent would do at its end is not for the child.
        os._exit(status)


def _end(child: _Child) -> None:
    """Kills the child with all it started."""
    child.is_wanted = False
    for kill in (os.killpg, os.kill):  # before it has a group of its own, by its number alone
        with suppress(ProcessLookupError):
            kill(child.pid, signal.SIGKILL)


def _bury(child: _Child) -> None:
    """Tells how the child ended. What it started is killed first: until it is waited for, its
    number is no other's.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    _, status = os.waitpid(child.pid, 0)
    os.close(child.handle)
    _tell(child.told, os.waitstatus_to_exitcode(status))
    child.told.close()


def _tell(told: socket.socket, number: int) -> None:
    with suppress(OSError):  # nobody listens any more
        told.send(NUMBER.pack(number))


def _check_alone() -> None:
    """Raises RuntimeError if another thread runs: a lock that it holds a child would wait for."""
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    if threads > 1:
        raise RuntimeError(f"{threads} threads run here: a fork would not be safe")


if __name__ == "__main__":
    sys.exit(main())
