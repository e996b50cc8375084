"""Calls receivers: one call at a time to each, again and again until it takes the message.

What was told is kept in the alert's record; here is only what is under way and when to try again.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from control_plane.alerts.messages import Message
from control_plane.events.recorder import EventRecorder
from control_plane.types.alerts.alert_setting import Webhook
from control_plane.types.alerts.alert_state import AlertState, Told
from control_plane.types.event import EventKind
from yolopool.errors import YolopoolError
from yolopool.server.clock import Clock

log = structlog.get_logger()

# Pauses after the first failure, the second and so on; the last one from there on.
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
# Failures of one message after which there is an event.
TOLD_AFTER = 3
_THREADS = 8

# The id of an alert, the receiver, and what it is told.
_Delivery = tuple[str, str, Told]
Post = Callable[[Webhook, Message], int]


@dataclass(frozen=True, slots=True)
class Sending:
    """A message that is due."""

    state: AlertState
    hook: Webhook
    told: Told
    message: Message

    @property
    def delivery(self) -> _Delivery:
        return (self.state.id, self.hook.name, self.told)


@dataclass(slots=True)
class _Failing:
    failures: int = 0
    not_before_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LastCall:
    """Of a receiver: when, and why it failed; empty: it did not."""

    unix_s: float = 0.0
    error: str = ""


class WebhookSender:
    """`post` blocks. `ended` is called when a call has ended: `take_ended` says which."""

    def __init__(
        self, post: Post, recorder: EventRecorder, clock: Clock, ended: Callable[[], None]
    ) -> None:
        self._post = post
        self._recorder = recorder
        self._clock = clock
        self._ended_call = ended
        self._threads = ThreadPoolExecutor(_THREADS, "webhook")
        self._running: dict[str, asyncio.Task[None]] = {}
        self._failing: dict[_Delivery, _Failing] = {}
        self._ended: list[tuple[Sending, bool]] = []
        self.last: dict[str, LastCall] = {}

    def offer(self, sendings: Sequence[Sending]) -> None:
        """All that is due now: begins a call to each receiver that has none under way."""
        due = {sending.delivery for sending in sendings}
        self._failing = {one: of for one, of in self._failing.items() if one in due}
        now = self._clock.monotonic()
        for sending in sendings:
            failing = self._failing.get(sending.delivery)
            waits = failing is not None and now < failing.not_before_s
            if not waits and sending.hook.name not in self._running:
                task = asyncio.create_task(self._send(sending), name=f"tell {sending.hook.name}")
                self._running[sending.hook.name] = task

    def take_ended(self) -> list[tuple[Sending, bool]]:
        """Calls that ended since the last look, and whether the receiver took the message."""
        ended, self._ended = self._ended, []
        return ended

    def next_s(self) -> float:
        """Seconds until a message may be tried again; a large number: none waits."""
        now = self._clock.monotonic()
        waits = (
            max(0.0, failing.not_before_s - now)
            for (_, receiver, _), failing in self._failing.items()
            if receiver not in self._running
        )
        return min(waits, default=60.0)

    async def trial(self, hook: Webhook, message: Message) -> int:
        """One call at once. Raises WebhookFailed."""
        loop = asyncio.get_running_loop()
        try:
            status = await loop.run_in_executor(self._threads, self._post, hook, message)
        except YolopoolError as error:
            self.last[hook.name] = LastCall(self._clock.unix(), error.message)
            raise
        self.last[hook.name] = LastCall(self._clock.unix())
        return status

    async def close(self) -> None:
        """Gives up the calls under way; whoever leads next makes them again, with the same id."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _send(self, sending: Sending) -> None:
        hook, is_taken = sending.hook, False
        try:
            await self.trial(hook, sending.message)
            is_taken = True
            log.info("told", receiver=hook.name, alert=sending.state.key, what=sending.told)
        except YolopoolError as error:
            self._note_failure(sending, error.message)
        finally:
            self._running.pop(hook.name, None)
        self._ended.append((sending, is_taken))
        self._ended_call()

    def _note_failure(self, sending: Sending, why: str) -> None:
        failing = self._failing.setdefault(sending.delivery, _Failing())
        pause_s = PAUSES_S[min(failing.failures, len(PAUSES_S) - 1)]
        failing.failures += 1
        failing.not_before_s = self._clock.monotonic() + pause_s
        log.warning("not told", receiver=sending.hook.name, alert=sending.state.key, why=why)
        if failing.failures == TOLD_AFTER:
            self._recorder.record(
                EventKind.WEBHOOK_FAILED,
                reason="WEBHOOK_FAILED",
                message=f"{sending.hook.name} could not be told of {sending.state.key}: {why}; it "
                "is tried again",
            )
