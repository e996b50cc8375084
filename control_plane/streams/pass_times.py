"""How many frames in flight keep the devices of a version busy, by what their answers told.

Pure.
"""

from collections import deque
from statistics import median

# Of a replica: one pass runs and the next waits, while images of one more are decoded.
PASSES, DECODING = 2, 2
# A larger pass is worth its longer wait where an image takes a tenth less of the device in it.
GAIN = 1.1
# Passes of one size that are remembered.
WINDOW = 9
# Frames hardly wait for the device if for less than this share of a pass: then it idles between
# passes, since calls take long to reach it.
IDLE, MOST_MORE = 0.1, 64


class PassTimes:
    """Begins with passes of one image: larger ones are tried as far as they prove worth it, each
    time up to twice as large. On a device where a pass of eight takes eight times as long as one of
    one, more in flight would give no more answers and only older ones.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        self._more = 0.0

    def record(self, images: int, seconds: float, waited_s: float, scarce: bool) -> None:
        """Notes an answer: the images and the time of its pass, and how long it waited for it.
        `scarce`: whether other frames waited for their turn meanwhile.
        """
        self._seconds.setdefault(images, deque(maxlen=WINDOW)).append(seconds)
        if waited_s > seconds:
            self._more = max(0.0, self._more - 0.1)
        elif scarce and waited_s < IDLE * seconds:
            self._more = min(MOST_MORE, self._more + 0.1)

    @property
    def worthwhile(self) -> int:
        """Images of a pass, such that in a larger one none would take much less of the device."""
        if not self._seconds:
            return 1
        each = {images: median(times) / images for images, times in self._seconds.items()}
        best = min(each.values())
        return min(images for images, seconds in each.items() if seconds <= GAIN * best)

    def limit(self, batches: list[int]) -> int:
        """Frames to have in flight on replicas whose passes may have so many images each."""
        sizes = [min(self.worthwhile, batch) for batch in batches]
        busy = sum(PASSES * size + max(DECODING, size) for size in sizes)
        return (busy or DECODING) + int(self._more)
