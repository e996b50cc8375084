"""Which image ends the workers that take it: found by what several of them had in hand.

Pure: times are monotonic seconds and arguments. Of each process that ended by its own fault it is
known which requests were in hand (its exit), of each request that was lost its image.
A lost request goes to its next worker as a suspect, and a worker has one suspect in hand at a time:
so the images that two exits have in common are one, and that one is convicted. An answer acquits.
A version whose images are convicted one by one, with no answer between, is at fault itself.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from control_plane.types.version import VersionKey

Key = TypeVar("Key")
Value = TypeVar("Value")
# How long a supervisor may take to say what was in hand; without a word nobody is implicated.
REPORT_S = 5.0
# Lost requests and exits that are kept.
MAX_KEPT = 4096
# Images of one version, none of its answered between, after which it is not they that end workers.
IMAGES_OF_A_VERSION = 2


class Image(NamedTuple):
    """As one version sees it: what ends that one's workers may be fine for another."""

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
    """What is implicated is forgotten after `keep_s`, as is what is quarantined."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._lost: dict[tuple[str, str], _Lost] = {}  # by process and request
        self._exits: dict[str, _Exit] = {}  # by process: an incarnation, or an I/O process's id
        # Of (incarnation, request): the I/O process that had it in hand.
        self._io: dict[tuple[str, str], str] = {}
        self._until: dict[Image | VersionKey, float] = {}  # of what is quarantined
        # Convicted here since the last answer of their version.
        self._convicted: dict[VersionKey, set[Image]] = {}

    def is_empty(self, now: float) -> bool:
        """Whether no image has to be looked at."""
        if not self._lost and not self._until:
            return True
        self._forget(now)
        return not self._lost and not self._until

    def lost(self, incarnation: str, request: str, image: Image, now: float) -> None:
        """A request was not answered, since its worker ended, or an I/O process of it."""
        process = self._process(incarnation, request)
        exit = self._exits.get(process)
        if exit is None or request in exit.requests:
            self._lost[process, request] = _Lost(image, now)
            _bound(self._lost)

    def exited(
        self, incarnation: str, requests: frozenset[str], now: float, io_process: str = ""
    ) -> None:
        """A process ended; `requests` were in hand (none: it was ended from outside). With
        `io_process` it was that one of the worker's, which lives on with all its other requests.
        """
        self._forget(now)
        self._exits[io_process or incarnation] = _Exit(requests, now)
        _bound(self._exits)
        if not io_process:
            mine = [key for key in self._lost if key[0] == incarnation and key[1] not in requests]
            for key in mine:
                del self._lost[key]
            return
        for request in requests:
            before = self._process(incarnation, request)
            self._io[incarnation, request] = io_process
            if (lost := self._lost.get((before, request))) is not None:
                if before == incarnation:
                    del self._lost[before, request]
                # Else a caller sent it again by the same name: it was in hand of both.
                self._lost[io_process, request] = lost
        _bound(self._io)

    def is_accused(self, incarnation: str, request: str) -> bool:
        """Whether the process that took this request may have ended by it, as far as is known."""
        return (self._process(incarnation, request), request) in self._lost

    def answered(self, image: Image) -> None:
        """It did not end its worker: whatever it was near, it was another's doing."""
        self._convicted.pop(image.version, None)
        self._lost = {key: lost for key, lost in self._lost.items() if lost.image != image}

    def works(self, version: VersionKey) -> None:
        """An image of this version was answered."""
        if self._convicted:
            self._convicted.pop(version, None)

    def is_suspect(self, image: Image) -> bool:
        """Whether it was in hand when a worker ended, as far as is known."""
        return any(lost.image == image for lost in self._lost.values())

    def is_recurrent(self, image: Image) -> bool:
        """Whether several processes may have ended by it."""
        return len(self._lost_with(image)) > 1

    def is_heard(self, image: Image) -> bool:
        """Whether it is known what they had in hand, of all processes that it was lost with."""
        return self._lost_with(image) <= self._exits.keys()

    def culprit(self, image: Image) -> Image | None:
        """The one image that an exit with this one in hand has in common with another exit; None:
        there is none, or there are several, of whom nobody can tell yet.
        """
        for process in self._exits_of(image):
            here = {lost.image for (where, _), lost in self._lost.items() if where == process}
            twice = {one for one in here if len(self._exits_of(one)) > 1}
            if len(twice) == 1:
                return twice.pop()
        return None

    def quarantine_image(self, image: Image, until: float) -> bool:
        """Refuses an image until then; whether its version is to be refused, too."""
        self.quarantine(image, until)
        convicted = self._convicted.setdefault(image.version, set())
        convicted.add(image)
        _bound(self._convicted)
        return len(convicted) >= IMAGES_OF_A_VERSION

    def quarantine(self, what: Image | VersionKey, until: float) -> None:
        """Refuses an image, or all images of a version, until then.

        What an image ended is explained, so it is held against no other that was in hand there.
        """
        if isinstance(what, Image):
            explained = self._lost_with(what)
            self._lost = {k: lost for k, lost in self._lost.items() if k[0] not in explained}
        self._until[what] = max(until, self._until.get(what, until))
        _bound(self._until)

    def refused_for_s(self, what: Image | VersionKey, now: float) -> float:
        """How long it is refused still; 0: it is not."""
        return max(0.0, self._until.get(what, now) - now)

    def _exits_of(self, image: Image) -> set[str]:
        return self._lost_with(image) & self._exits.keys()

    def _lost_with(self, image: Image) -> set[str]:
        return {process for (process, _), lost in self._lost.items() if lost.image == image}

    def _process(self, incarnation: str, request: str) -> str:
        return self._io.get((incarnation, request), incarnation)

    def _forget(self, now: float) -> None:
        self._exits = {k: one for k, one in self._exits.items() if now - one.at < self._keep_s}
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
