"""Refuses images that end workers, and versions that do: hashes where there is a reason to, and
shares what is convicted.

While no worker was lost nothing is hashed. Convictions are events of the fleet, from which every
control plane learns them.
"""

import asyncio
import hashlib
from collections.abc import Callable

import structlog

from control_plane.clock import Clock
from control_plane.convert.versions import key_in
from control_plane.events.recorder import EventRecorder
from control_plane.routing.poison import Image, Poison
from control_plane.store.registry import EventLog
from control_plane.types.event import Event, EventKind
from control_plane.types.version import VersionKey
from control_plane.view.waiters import ANY, Waiters
from yolopool.errors import ImageQuarantined, RegistryUnavailable, VersionQuarantined
from yolopool.v1 import worker_pb2

log = structlog.get_logger()
# For the words of the supervisors on those workers that an image was lost with, once there are two,
# and then for the other requests that were lost with them to be known here.
REPORT_WAIT_S, SETTLE_S = 2.0, 0.05
# Workers that one request may lose: beyond two only where it is known not to be the cause.
MOST_LOST = 3
# A larger image would hold the event loop up for some milliseconds.
INLINE_BYTES = 1024**2
# Of the stream of events: those that are read at the start, and how long to wait for the next.
RECENT, WAIT_S, RETRY_S = 1000, 5.0, 1.0


class Quarantine:
    """`refuse_s`: for how long an image or a version is refused; 0: none ever is. `works`: whether
    any worker answers for a version these days, whoever asked it.
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
        self._words = Waiters()

    async def check(self, body: worker_pb2.InferRequest) -> None:
        """Marks a request whose image is a suspect. Raises ImageQuarantined, VersionQuarantined."""
        if self._poison.is_empty(self._clock.monotonic()):
            return
        self._refuse_version(key_in(body.version))
        image = await image_of(body)
        self._refuse(image)
        if self._poison.is_recurrent(image) and not self._poison.is_heard(image):
            await self._judge(image, REPORT_WAIT_S)
        body.suspect = self._poison.is_suspect(image)

    async def answered(self, body: worker_pb2.InferRequest) -> None:
        """It did not end its worker."""
        if body.suspect:
            self._poison.answered(await image_of(body))
        else:
            self._poison.works(key_in(body.version))

    def exited(self, incarnation: str, requests: frozenset[str], io_process: str = "") -> None:
        """It was said what a process had in hand when it ended; see `Poison.exited`."""
        if incarnation and self._refuse_s:
            self._poison.exited(incarnation, requests, self._clock.monotonic(), io_process)
            self._words.wake(ANY)

    async def may_go_on(
        self, body: worker_pb2.InferRequest, incarnation: str, lost: int, deadline_s: float
    ) -> bool:
        """A worker or its I/O process ended with this request in hand, the `lost`-th: whether
        another may be asked, to which it goes as a suspect.

        Raises ImageQuarantined if that was its image's doing, VersionQuarantined if its version's.
        deadline_s: monotonic.
        """
        if not self._refuse_s:
            return lost == 1
        image = await image_of(body)
        self._refuse(image)
        now, request = self._clock.monotonic(), body.request_id
        self._poison.lost(incarnation, request, image, now)
        body.suspect = True
        # It may have been another request's before: who sends it again is not to end a third one.
        if lost == 1 and not self._poison.is_recurrent(image):
            return True
        if lost >= MOST_LOST:
            return False
        await self._judge(image, min(REPORT_WAIT_S, deadline_s - now))
        return lost == 1 or not self._poison.is_accused(incarnation, request)

    async def follow(self) -> None:
        """Goes on for ever: learns what any control plane convicted."""
        after, first = "", True
        while self._refuse_s:
            try:
                if first:
                    found = await self._registry.events("", RECENT)
                else:
                    found = await self._registry.next_events(after, WAIT_S)
            except RegistryUnavailable:
                await asyncio.sleep(RETRY_S)
                continue
            first = False
            for event in found:
                self._learn(event)
                after = event.id

    async def _judge(self, image: Image, wait_s: float) -> None:
        """Waits until it is known what the processes had in hand that this image was lost with, the
        first as well as the last (who tells first is chance), and convicts whom that proves guilty.

        Raises as `_refuse` if it is this one.
        """
        await self._words.until(ANY, lambda: self._poison.is_heard(image) or None, wait_s)
        await asyncio.sleep(SETTLE_S)
        guilty = self._poison.culprit(image)
        if guilty is not None:
            self._convict(guilty)
        self._refuse(image)

    def _convict(self, image: Image) -> None:
        key, digest = image
        log.error("image quarantined", image=digest, version=str(key))
        until = self._clock.monotonic() + self._refuse_s
        for_s = f"refused for {self._refuse_s:g} s"
        says = f"it was in hand when two workers ended: {for_s} by {key}"
        self._recorder.record(EventKind.IMAGE_QUARANTINED, version=key, message=says, image=digest)
        if self._poison.quarantine_image(image, until) and not self._works(key):
            log.error("version quarantined", version=str(key))
            self._poison.quarantine(key, until)
            says = (
                "several of its images ended two workers each and none was answered between: it is "
                f"{for_s}; have a look at it, or put another version in its place"
            )
            self._recorder.record(EventKind.VERSION_QUARANTINED, version=key, message=says)

    def _refuse(self, image: Image) -> None:
        self._refuse_version(image.version)
        left_s = self._poison.refused_for_s(image, self._clock.monotonic())
        if left_s:
            raise ImageQuarantined(
                f"this image ended two workers of {image.version} and is refused by it for "
                f"{left_s:.0f} s more: send it again after that, or have a look at it",
                retry_after_s=left_s,
                details={"sha256": image.digest},
            )

    def _refuse_version(self, key: VersionKey) -> None:
        left_s = self._poison.refused_for_s(key, self._clock.monotonic())
        if left_s:
            raise VersionQuarantined(
                f"{key} ended its workers with several images and answered none: it is refused for "
                f"{left_s:.0f} s more; use another version, or have a look at this one",
                retry_after_s=left_s,
            )

    def _learn(self, event: Event) -> None:
        what: Image | VersionKey | None = None
        if event.kind is EventKind.VERSION_QUARANTINED:
            what = event.version
        elif event.kind is EventKind.IMAGE_QUARANTINED and event.version is not None:
            what = Image(event.version, event.image)
        left_s = event.unix_s + self._refuse_s - self._clock.unix()
        if what is not None and left_s > 0:
            self._poison.quarantine(what, self._clock.monotonic() + left_s)


async def image_of(body: worker_pb2.InferRequest) -> Image:
    """By the SHA-256 in hex of the image as it came; of raw pixels with their form."""
    return Image(key_in(body.version), await _digest_of(body))


async def _digest_of(body: worker_pb2.InferRequest) -> str:
    data = body.encoded or body.raw.data
    raw = body.raw
    form = "" if body.encoded else f"{raw.height} {raw.width} {raw.channel_order} "
    if len(data) <= INLINE_BYTES:
        return _sha256(form, data)
    return await asyncio.to_thread(_sha256, form, data)


def _sha256(form: str, data: bytes) -> str:
    digest = hashlib.sha256(form.encode())
    digest.update(data)
    return digest.hexdigest()
