"""A real process a core, before all others: whether it sees that it was not run."""

import asyncio
import os
import signal
import time

from benchmarks.harness.standstill import LATE_S, Standstills


async def test_a_process_that_was_not_run_says_from_when_until_when() -> None:
    async with Standstills() as stood:
        assert len(stood.pids) == len(os.sched_getaffinity(0))
        if not stood.is_known:  # not allowed to go before others: then it must not guess
            await asyncio.sleep(0.2)
            assert not stood.spans
            return
        await asyncio.sleep(0.05)
        began = time.monotonic()
        os.kill(stood.pids[0], signal.SIGSTOP)
        await asyncio.sleep(0.2)
        os.kill(stood.pids[0], signal.SIGCONT)
        ended = time.monotonic()
        await asyncio.sleep(0.2)
        longest = max(stood.spans, key=lambda span: span[1] - span[0])
    assert began - LATE_S <= longest[0] < began + 0.1
    assert longest[1] >= ended - LATE_S
