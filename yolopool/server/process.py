"""How a server process runs until a signal, and keeps garbage collection cheap."""

import asyncio
import gc
import signal


def settle() -> None:
    """Call once after start-up: excludes everything that exists now from garbage collection.

    With torch loaded, a full collection stopped the process for a tenth of a second.
    """
    gc.collect()
    gc.freeze()


async def until_signal() -> str:
    """Waits for SIGTERM or SIGINT and returns its name."""
    loop = asyncio.get_running_loop()
    caught: asyncio.Future[str] = loop.create_future()

    def catch(name: str) -> None:
        if not caught.done():
            caught.set_result(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, catch, number.name)
    return await caught
