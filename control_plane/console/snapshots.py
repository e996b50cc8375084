"""What all open pages show, looked up once for all of them: the fleet, its workers, the requests of
the last minute.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from control_plane.gateway.admin.endpoints import one_line
from control_plane.gateway.dispatch import Caller, Dispatch
from yolopool.errors import YolopoolError
from yolopool.v1 import fleet_pb2

PERIOD_S = 1.0
# Proxies end a connection that is silent for a minute.
HEARTBEAT_S = 15.0
# How soon a key that was revoked sees no more.
ASKED_EVERY_S = 5.0
RETRY_MS = 2000
_FLEET = "/yolopool.v1.FleetService/"


@dataclass(slots=True)
class Part:
    """A piece of the page; `turn` grows when it changed."""

    text: str = ""
    turn: int = 0

    def take(self, text: str) -> None:
        if text != self.text:
            self.text, self.turn = text, self.turn + 1


class Snapshots:
    """`now`: monotonic seconds."""

    def __init__(self, dispatch: Dispatch, now: Callable[[], float]) -> None:
        self._dispatch = dispatch
        self._now = now
        self._lock = asyncio.Lock()
        self._looked_s = float("-inf")
        self.parts = {"fleet": Part(), "workers": Part(), "statistics": Part()}

    async def look(self, caller: Caller) -> dict[str, Part]:
        """The parts as they were within the last second; who comes first looks for all. The caller
        must be allowed to see them.
        """
        async with self._lock:
            if self._now() - self._looked_s >= PERIOD_S:
                self.parts["fleet"].take(await self._ask("GetFleet", caller))
                self.parts["workers"].take(await self._ask("ListWorkers", caller))
                self.parts["statistics"].take(await self._ask("GetStatistics", caller))
                self._looked_s = self._now()
        return self.parts

    async def _ask(self, name: str, caller: Caller) -> str:
        request: Any = getattr(fleet_pb2, f"{name}Request")()
        reply = await self._dispatch.unary(f"{_FLEET}{name}", request, caller)
        for worker in getattr(reply, "workers", ()) if name == "ListWorkers" else ():
            worker.ClearField("lease_left_s")  # it changes always, and no page shows it
        return one_line(reply)

    async def lines(
        self,
        caller: Caller,
        ask: Callable[[], Awaitable[object]],
        told: Callable[[YolopoolError], str],
    ) -> AsyncIterator[str]:
        """Server-sent events: each part once, and again when it changed, until this process stops.
        `ask` raises what refuses the caller from now on, which `told` makes a text of.
        """
        yield f"retry: {RETRY_MS}\n\n"
        sent = dict.fromkeys(self.parts, 0)
        said_s = self._now()
        asked_s = float("-inf")
        while not self._dispatch.is_stopping:
            try:
                if self._now() - asked_s >= ASKED_EVERY_S:
                    asked_s = self._now()
                    await ask()
                parts = await self.look(caller)
            except YolopoolError as error:
                yield f"event: problem\ndata: {told(error)}\n\n"
                return
            changed = [name for name, part in parts.items() if part.turn != sent[name]]
            if changed:
                sent |= {name: parts[name].turn for name in changed}
                said_s = self._now()
                yield "".join(f"event: {name}\ndata: {parts[name].text}\n\n" for name in changed)
            elif self._now() - said_s > HEARTBEAT_S:
                said_s = self._now()
                yield ": nothing new\n\n"
            await asyncio.sleep(PERIOD_S)
