"""Output goes to its reader, and nobody waits for one that stands still."""

import os
import re

from worker.process.stderr_writer import NonBlockingStderr


def test_what_is_written_arrives_in_order() -> None:
    reading, writing = os.pipe()
    stderr = NonBlockingStderr(writing)
    for number in range(100):
        stderr.write(f"{number}\n")
    stderr.drain(10)
    assert os.read(reading, 4096).decode().split() == [str(number) for number in range(100)]
    os.close(reading)
    os.close(writing)


def test_a_reader_that_stands_still_holds_nobody_up_and_hears_what_it_missed() -> None:
    reading, writing = os.pipe()
    stderr = NonBlockingStderr(writing, max_bytes=200_000)
    line = b"x" * 999 + b"\n"
    for _ in range(1000):
        stderr.pass_on(line)
    stderr.drain(0.01)  # nor the end of the process
    seen = b""
    while len(seen) < 100_000:  # more than the pipe holds: the relay has room again
        seen += os.read(reading, 65536)
    stderr.pass_on(b"last\n")
    while not seen.endswith(b"last\n"):
        seen += os.read(reading, 65536)
    # Where the relay's thread wrote between two lines, there is more than one notice.
    told = sum(map(int, re.findall(rb"\[(\d+) bytes were not read in time\]\n", seen)))
    assert 500_000 < told < 1_000_000
    assert told + seen.count(line) * len(line) == 1_000_000
    os.close(reading)
    stderr.drain(10)
    os.close(writing)


def test_a_reader_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stderr = NonBlockingStderr(writing)
    stderr.pass_on(b"to nobody")
    stderr.drain(10)
    os.close(writing)
