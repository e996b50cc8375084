"""What this control plane saw of rollouts: in memory, bounded, until the loop tells it. Pure.

Two answers are compared if they are alike: about the same image, where one version was run beside
the other; or an answer of the candidate and the newest one of the stable version, of which only
errors and times are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from control_plane.types.rollout.progress import Rollout
from yolopool.evaluation.agreement.disagreement import disagreement
from yolopool.evaluation.agreement.evidence import Evidence
from yolopool.evaluation.agreement.matching import MAX_OBJECTS, Found, class_number
from yolopool.v1 import detection_pb2

# Errors that are the version's: a caller's mistake, or a queue that is full, tells nothing of it.
OF_VERSION = frozenset(
    {
        "INFERENCE_FAILED",
        "LOAD_FAILED",
        "OUT_OF_MEMORY",
        "DEVICE_FAILED",
        "DEVICE_HUNG",
        "WORKER_LOST",
        "WORKER_SILENT",
        "IMAGE_QUARANTINED",
        "VERSION_QUARANTINED",
        "DEADLINE_EXCEEDED",
        "INTERNAL",
    }
)
# Images that are kept, those on which both disagree most, and how large one may be.
IMAGES_KEPT, MAX_IMAGE_BYTES = 8, 2 * 2**20
# Of all rollouts, also those that ended: they are looked at afterwards.
MAX_KEPT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """One version's answer to one request; `reply` is None where it `failed`."""

    failed: bool
    reply: detection_pb2.DetectResponse | None = None

    @property
    def ms(self) -> float:
        """On the worker, without waiting: what the version itself takes."""
        if self.reply is None:
            return 0.0
        timing = self.reply.timing
        return timing.decode_ms + timing.preprocess_ms + timing.inference_ms + timing.postprocess_ms


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image on which both disagree by `size`; encoded, as the caller sent it."""

    size: float
    encoded: bytes
    stable: detection_pb2.DetectResponse
    candidate: detection_pb2.DetectResponse


@dataclass(slots=True)
class Gathering:
    """Of one step of one rollout. `class_names`: of the stable version, by class id. `told`: how
    many requests of it the leader knows; `dropped`: samples that were not run beside because
    something was busy.
    """

    rollout: Rollout
    evidence: Evidence
    class_names: Sequence[str] = ()
    newest_stable: Answer | None = None
    told: int = 0
    dropped: int = 0
    images: list[KeptImage] = field(default_factory=list)

    @property
    def topic(self) -> str:
        return topic_of(self.rollout)

    def live(self, version: int, answer: Answer) -> None:
        """An answer that a caller got. Each is compared once."""
        if version == self.rollout.stable:
            self.newest_stable = answer
        elif self.newest_stable is not None:
            stable, self.newest_stable = self.newest_stable, None
            self._note(stable, answer)

    def beside(self, stable: Answer, candidate: Answer, encoded: bytes) -> None:
        """The answers of both about one image; `encoded`: empty if it must not be kept."""
        self._note(stable, candidate)
        if stable.reply is None or candidate.reply is None:
            return
        ours = found_in(stable.reply, self.class_names)
        theirs = found_in(candidate.reply, self.class_names)
        apart = disagreement(ours, theirs, self.evidence.allowed)
        self.evidence.note_images(ours, theirs, apart)
        if encoded and self.rollout.plan.keep_images and len(encoded) <= MAX_IMAGE_BYTES:
            self._keep(KeptImage(apart.size, encoded, stable.reply, candidate.reply))

    def _note(self, stable: Answer, candidate: Answer) -> None:
        self.evidence.note_outcome(stable_failed=stable.failed, candidate_failed=candidate.failed)
        if not stable.failed and not candidate.failed:
            self.evidence.note_times(stable.ms, candidate.ms)

    def _keep(self, image: KeptImage) -> None:
        if image.size > 0.0:
            ranked = sorted([*self.images, image], key=lambda one: -one.size)
            self.images = ranked[:IMAGES_KEPT]


class Gathered:
    """The gatherings of this control plane, one for each rollout that runs."""

    def __init__(self) -> None:
        self._by_id: dict[str, Gathering] = {}

    def of(self, rollout: Rollout, class_names: Sequence[str] = ()) -> Gathering:
        """The gathering of the present step; an earlier step's is dropped. `class_names`: of the
        stable version, by class id.
        """
        known = self._by_id.get(rollout.id)
        if known is None or known.rollout.step != rollout.step:
            fresh = Gathering(rollout, Evidence(rollout.plan.tolerance), class_names)
            # What is kept to look at is of the whole rollout.
            fresh.images = known.images if known is not None else []
            known = self._by_id[rollout.id] = fresh
        return known

    def look(self, rollout: str) -> Gathering | None:
        """That of a rollout, if anything was gathered; also once it has ended."""
        return self._by_id.get(rollout)

    def every(self) -> Sequence[Gathering]:
        return tuple(self._by_id.values())

    def keep_only(self, rollouts: frozenset[str]) -> None:
        """Forgets rollouts that no alias has any more, and images beyond MAX_KEPT_BYTES, those of
        the rollouts that began first.
        """
        for gone in self._by_id.keys() - rollouts:
            del self._by_id[gone]
        left = MAX_KEPT_BYTES
        for one in reversed(self._by_id.values()):
            left -= sum(len(image.encoded) for image in one.images)
            if left < 0:
                one.images = []


def topic_of(rollout: Rollout) -> str:
    """What control planes tell their sums under."""
    return f"{rollout.id}:{rollout.step}"


def found_in(reply: detection_pb2.DetectResponse, known: Sequence[str]) -> Found:
    """What an answer says is on the image, rotated boxes by the upright ones round them; the
    likeliest class of a whole image as one object as large as it. `known`: the stable version's
    class names.
    """
    if reply.HasField("classification"):
        top = reply.classification.top[:1]
        whole = [(0.0, 0.0, float(reply.image_width), float(reply.image_height))] * len(top)
        numbers = [class_number(one.class_id, one.class_name, known) for one in top]
        return _found(whole, numbers, [one.probability for one in top])
    most = reply.detections[:MAX_OBJECTS]
    boxes = [(one.box.x_min, one.box.y_min, one.box.x_max, one.box.y_max) for one in most]
    classes = [class_number(one.class_id, one.class_name, known) for one in most]
    return _found(boxes, classes, [one.confidence for one in most])


def _found(
    boxes: Sequence[tuple[float, float, float, float]],
    classes: Sequence[int],
    scores: Sequence[float],
) -> Found:
    return Found(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(classes, np.int64),
        np.array(scores, np.float64),
    )
