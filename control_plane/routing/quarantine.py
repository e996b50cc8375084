"""Rejects images that crash workers, and versions that crash with several images.

It hashes images only after a worker was lost. A conviction is an event of the fleet: every control
plane reads the events, and applies it.
"""

import asyncio
import hashlib
from collections.abc import Callable

import structlog

from control_plane.convert.versions import key_in
from control_plane.events.recorder import EventRecorder
from control_plane.routing.poison import Image, Poison
from control_plane.store.protocols.observed_state import EventLog
from control_plane.types.event import Event, EventKind
from control_plane.types.version import VersionKey
from control_plane.view.waiters import ANY, Waiters
from yolopool.errors import ImageQuarantined, RegistryUnavailable, VersionQuarantined
from yolopool.server.clock import Clock
from yolopool.v1 import worker_pb2

log = structlog.get_logger()
# How long to wait for the supervisors' exit reports once an image was lost with two workers; then,
# for the other requests that were lost with these workers to be noted here.
REPORT_WAIT_S, SETTLE_S = 2.0, 0.05
# Workers that one request may lose; a third one only if the request did not crash the second.
MAX_LOST = 3
# To hash a larger image inline would block the event loop for milliseconds.
INLINE_BYTES = 1024**2
# Events that are read at the start; how long one read waits for new ones; pause after a failure.
RECENT_EVENTS, WAIT_S, RETRY_S = 1000, 5.0, 1.0


class Quarantine:
    """`refuse_s`: how long an image or a version is quarantined; 0: never. `works`: whether a
    worker answers for a version now, whichever control plane sent the request.
    """

    def __init__(
        self,
        registry: EventLog,
        recorder: EventRecorder,
        clock: Clock,
        refuse_s: float,
        works: Callable[[VersionKey], bool],
    ) -> None:
        self._registry = registry
        self._recorder = recorder
        self._clock = clock
        self._refuse_s = refuse_s
        self._works = works
        self._poison = Poison(refuse_s)
        self._reports = Waiters()

    async def check(self, body: worker_pb2.InferRequest) -> None:
        """Marks a request whose image is a suspect. Raises ImageQuarantined, VersionQuarantined."""
        if self._poison.is_empty(self._clock.monotonic()):
            return
        self._refuse_version(key_in(body.version))
        image = await image_of(body)
        self._refuse(image)
        if self._poison.is_recurrent(image) and not self._poison.is_reported(image):
            await self._judge(image, REPORT_WAIT_S)
        body.suspect = self._poison.is_suspect(image)

    async def answered(self, body: worker_pb2.InferRequest) -> None:
        """The request was answered: it crashed no worker."""
        if body.suspect:
            self._poison.answered(await image_of(body))
        else:
            self._poison.works(key_in(body.version))

    def exited(self, incarnation: str, requests: frozenset[str], io_process: str = "") -> None:
        """An exit report arrived; see `Poison.exited`."""
        if incarnation and self._refuse_s:
            self._poison.exited(incarnation, requests, self._clock.monotonic(), io_process)
            self._reports.wake(ANY)

    async def may_go_on(
        self, body: worker_pb2.InferRequest, incarnation: str, lost: int, deadline_s: float
    ) -> bool:
        """Whether a request may go to another worker, as a suspect, after its worker or an I/O
        process ended with it in flight, for the `lost`-th time. deadline_s: monotonic.

        Raises ImageQuarantined if its image is the cause, VersionQuarantined if its version is.
        """
        if not self._refuse_s:
            return lost == 1
        image = await image_of(body)
        self._refuse(image)
        now, request = self._clock.monotonic(), body.request_id
        self._poison.lost(incarnation, request, image, now)
        body.suspect = True
        # The image may have been lost before, in another request: one that a caller sends again and
        # again must not crash a third worker.
        if lost == 1 and not self._poison.is_recurrent(image):
            return True
        if lost >= MAX_LOST:
            return False
        await self._judge(image, min(REPORT_WAIT_S, deadline_s - now))
        return lost == 1 or not self._poison.is_implicated(incarnation, request)

    async def follow(self) -> None:
        """Runs for ever: applies the convictions of every control plane."""
        after, first = "", True
        while self._refuse_s:
            try:
                if first:
                    events = await self._registry.events("", RECENT_EVENTS)
                else:
                    events = await self._registry.next_events(after, WAIT_S)
            except RegistryUnavailable:
                await asyncio.sleep(RETRY_S)
                continue
            first = False
            for event in events:
                self._apply(event)
                after = event.id

    async def _judge(self, image: Image, wait_s: float) -> None:
        """Waits for the exit reports of all processes that this image was lost with (they come in
        any order), and convicts the image that they prove guilty.

        Raises as `_refuse` if it is this image.
        """
        await self._reports.until(ANY, lambda: self._poison.is_reported(image) or None, wait_s)
        await asyncio.sleep(SETTLE_S)
        guilty = self._poison.culprit(image)
        if guilty is not None:
            self._convict(guilty)
        self._refuse(image)

    def _convict(self, image: Image) -> None:
        key, digest = image
        log.error("image quarantined", image=digest, version=str(key))
        until = self._clock.monotonic() + self._refuse_s
        for_s = f"{self._refuse_s:g} s"
        message = f"it was in flight when two workers crashed: {key} refuses it for {for_s}"
        self._recorder.record(
            EventKind.IMAGE_QUARANTINED, version=key, message=message, image=digest
        )
        if self._poison.quarantine_image(image, until) and not self._works(key):
            log.error("version quarantined", version=str(key))
            self._poison.quarantine(key, until)
            message = (
                "several of its images crashed two workers each, and it answered none meanwhile: "
                f"it is refused for {for_s}; inspect it, or use another version"
            )
            self._recorder.record(EventKind.VERSION_QUARANTINED, version=key, message=message)

    def _refuse(self, image: Image) -> None:
        self._refuse_version(image.version)
        left_s = self._poison.refused_for_s(image, self._clock.monotonic())
        if left_s:
            raise ImageQuarantined(
                f"this image crashed two workers of {image.version}, which refuses it for "
                f"{left_s:.0f} s more: send it again after that, or inspect it",
                retry_after_s=left_s,
                details={"sha256": image.digest},
            )

    def _refuse_version(self, key: VersionKey) -> None:
        left_s = self._poison.refused_for_s(key, self._clock.monotonic())
        if left_s:
            raise VersionQuarantined(
                f"{key} crashed its workers with several images and answered none: it is refused "
                f"for {left_s:.0f} s more; use another version, or inspect this one",
                retry_after_s=left_s,
            )

    def _apply(self, event: Event) -> None:
        what: Image | VersionKey | None = None
        if event.kind is EventKind.VERSION_QUARANTINED:
            what = event.version
        elif event.kind is EventKind.IMAGE_QUARANTINED and event.version is not None:
            what = Image(event.version, event.image)
        left_s = event.unix_s + self._refuse_s - self._clock.unix()
        if what is not None and left_s > 0:
            self._poison.quarantine(what, self._clock.monotonic() + left_s)


async def image_of(body: worker_pb2.InferRequest) -> Image:
    """By the SHA-256 of the image as it was sent; for raw pixels, of their shape and order too."""
    return Image(key_in(body.version), await _digest_of(body))


async def _digest_of(body: worker_pb2.InferRequest) -> str:
    data = body.encoded or body.raw.data
    raw = body.raw
    shape = "" if body.encoded else f"{raw.height} {raw.width} {raw.channel_order} "
    if len(data) <= INLINE_BYTES:
        return _sha256(shape, data)
    return await asyncio.to_thread(_sha256, shape, data)


def _sha256(shape: str, data: bytes) -> str:
    digest = hashlib.sha256(shape.encode())
    digest.update(data)
    return digest.hexdigest()
