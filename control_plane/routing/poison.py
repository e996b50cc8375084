"""Finds the image that crashes the workers it is sent to, from what they had in flight.

Pure: times are monotonic seconds and arguments. An exit report names the requests that a crashed
process had in flight; each lost request has an image. A lost request is retried as a suspect, and a
worker runs one suspect at a time: so two exits have at most one image in common, and that one is
convicted. An answer acquits an image. A version is at fault itself when several of its images are
convicted and none of its images was answered meanwhile.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from control_plane.types.version import VersionKey

Key = TypeVar("Key")
Value = TypeVar("Value")
# How long to wait for an exit report. Without one, no image is implicated.
REPORT_S = 5.0
# Entries in each table.
MAX_KEPT = 4096
# This many convicted images of a version, with no answer meanwhile, convict the version.
IMAGES_OF_A_VERSION = 2


class Image(NamedTuple):
    """An image for one version: it may crash the workers of this version only."""

    version: VersionKey
    digest: str


@dataclass(frozen=True, slots=True)
class _Lost:
    image: Image
    since: float


@dataclass(frozen=True, slots=True)
class _Exit:
    requests: frozenset[str]
    at: float


class Poison:
    """Forgets exits, and the requests lost in them, after `keep_s`."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._lost: dict[tuple[str, str], _Lost] = {}  # by process and request id
        # By process: the incarnation of a worker, or the id of one of its I/O processes.
        self._exits: dict[str, _Exit] = {}
        # By incarnation and request id: the I/O process that had the request in flight.
        self._io: dict[tuple[str, str], str] = {}
        self._until: dict[Image | VersionKey, float] = {}  # when each quarantine ends
        # Images convicted here since their version last answered.
        self._convicted: dict[VersionKey, set[Image]] = {}

    def is_empty(self, now: float) -> bool:
        """Whether no image has to be hashed: nothing is lost, and nothing is quarantined."""
        if not self._lost and not self._until:
            return True
        self._forget(now)
        return not self._lost and not self._until

    def lost(self, incarnation: str, request: str, image: Image, now: float) -> None:
        """A request got no answer, since its worker, or an I/O process of it, ended."""
        process = self._process(incarnation, request)
        exit = self._exits.get(process)
        if exit is None or request in exit.requests:
            self._lost[process, request] = _Lost(image, now)
            _bound(self._lost)

    def exited(
        self, incarnation: str, requests: frozenset[str], now: float, io_process: str = ""
    ) -> None:
        """A process ended with `requests` in flight; none if it was stopped from outside.

        With `io_process` only that process ended: its worker lives on with its other requests.
        """
        self._forget(now)
        self._exits[io_process or incarnation] = _Exit(requests, now)
        _bound(self._exits)
        if not io_process:
            others = [key for key in self._lost if key[0] == incarnation and key[1] not in requests]
            for key in others:
                del self._lost[key]
            return
        for request in requests:
            before = self._process(incarnation, request)
            self._io[incarnation, request] = io_process
            if (lost := self._lost.get((before, request))) is not None:
                if before == incarnation:
                    del self._lost[before, request]
                # Otherwise a caller sent it again with the same id, and both processes had it.
                self._lost[io_process, request] = lost
        _bound(self._io)

    def is_implicated(self, incarnation: str, request: str) -> bool:
        """Whether this request may be why its process ended, as far as is known."""
        return (self._process(incarnation, request), request) in self._lost

    def answered(self, image: Image) -> None:
        """The image was answered: it is innocent of every exit it was in flight at."""
        self._convicted.pop(image.version, None)
        self._lost = {key: lost for key, lost in self._lost.items() if lost.image != image}

    def works(self, version: VersionKey) -> None:
        """The version answered an image."""
        if self._convicted:
            self._convicted.pop(version, None)

    def is_suspect(self, image: Image) -> bool:
        """Whether it was in flight when a worker ended, as far as is known."""
        return any(lost.image == image for lost in self._lost.values())

    def is_recurrent(self, image: Image) -> bool:
        """Whether several processes may have ended because of it."""
        return len(self._lost_with(image)) > 1

    def is_reported(self, image: Image) -> bool:
        """Whether all processes that it was lost with have an exit report."""
        return self._lost_with(image) <= self._exits.keys()

    def culprit(self, image: Image) -> Image | None:
        """The image that one of this image's exits has in common with another exit.

        None: there is no such image, or several, and nothing tells them apart yet.
        """
        for process in self._exits_of(image):
            here = {lost.image for (where, _), lost in self._lost.items() if where == process}
            repeated = {other for other in here if len(self._exits_of(other)) > 1}
            if len(repeated) == 1:
                return repeated.pop()
        return None

    def quarantine_image(self, image: Image, until: float) -> bool:
        """Quarantines an image; returns whether its version is at fault too."""
        self.quarantine(image, until)
        convicted = self._convicted.setdefault(image.version, set())
        convicted.add(image)
        _bound(self._convicted)
        return len(convicted) >= IMAGES_OF_A_VERSION

    def quarantine(self, what: Image | VersionKey, until: float) -> None:
        """Quarantines an image, or all images of a version.

        An image explains its exits: they do not count against other images that were in flight.
        """
        if isinstance(what, Image):
            explained = self._lost_with(what)
            self._lost = {k: lost for k, lost in self._lost.items() if k[0] not in explained}
        self._until[what] = max(until, self._until.get(what, until))
        _bound(self._until)

    def refused_for_s(self, what: Image | VersionKey, now: float) -> float:
        """Seconds until its quarantine ends; 0: it is not quarantined."""
        return max(0.0, self._until.get(what, now) - now)

    def _exits_of(self, image: Image) -> set[str]:
        return self._lost_with(image) & self._exits.keys()

    def _lost_with(self, image: Image) -> set[str]:
        return {process for (process, _), lost in self._lost.items() if lost.image == image}

    def _process(self, incarnation: str, request: str) -> str:
        return self._io.get((incarnation, request), incarnation)

    def _forget(self, now: float) -> None:
        self._exits = {k: exit for k, exit in self._exits.items() if now - exit.at < self._keep_s}
        self._io = {key: process for key, process in self._io.items() if process in self._exits}
        self._until = {what: until for what, until in self._until.items() if now < until}
        for version, images in tuple(self._convicted.items()):
            images &= self._until.keys()
            if not images:
                del self._convicted[version]
        self._lost = {
            key: lost
            for key, lost in self._lost.items()
            if now - lost.since < (self._keep_s if key[0] in self._exits else REPORT_S)
        }


def _bound(kept: dict[Key, Value]) -> None:
    while len(kept) > MAX_KEPT:
        del kept[next(iter(kept))]
