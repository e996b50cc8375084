"""Numbers the objects of one video from frame to frame, by ByteTrack of the library `trackers`."""

from dataclasses import replace
from typing import Any

import numpy as np

from yolopool.client.detections import Detections
from yolopool.errors import ExtraMissing

# Those of the model library's own ByteTrack: every object that a version reports by default begins
# a track, and one that was not seen for a second is forgotten.
_SURE, _NEW = 0.25, 0.25
_LOST_FRAMES = 30  # of 30 a second
_USUAL_RATE = 30.0


class Tracker:
    """The tracks of one source: frames of two sources must never meet in one."""

    def __init__(self, rate: float) -> None:
        try:
            import supervision
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise ExtraMissing(
                f"tracking needs supervision and trackers ({error}): pip install "
                "'yolopool[tracking]'"
            ) from error
        self._supervision = supervision
        self._rate = rate or _USUAL_RATE
        self._last_s = -1.0
        self._tracker: Any = ByteTrackTracker(
            lost_track_buffer=_LOST_FRAMES,
            frame_rate=self._rate,
            track_activation_threshold=_NEW,
            high_conf_det_threshold=_SURE,
            minimum_consecutive_frames=1,
        )

    def update(self, found: Detections, time_s: float) -> Detections:
        """The same objects with their `tracker_id`; an object has one from its second frame on."""
        # The clock of a damaged file may stand still or go back.
        self._last_s = max(time_s, self._last_s + 0.1 / self._rate)
        place = np.arange(len(found))
        theirs = self._supervision.Detections(
            xyxy=found.xyxy.astype(float),
            confidence=found.confidence,
            class_id=found.class_id,
            data={"place": place},
        )
        tracked = self._tracker.update(theirs, timestamp=self._last_s)
        ids = np.full(len(found), -1, np.int64)
        if len(tracked):
            ids[tracked.data["place"]] = tracked.tracker_id
        return replace(found, tracker_id=ids)
