"""What became of each image of many, and of each frame of a video."""

from dataclasses import dataclass
from fractions import Fraction

from PIL import Image

from yolopool.client.detections import Detections
from yolopool.client.images import ImageLike
from yolopool.errors import YolopoolError

Failure = YolopoolError | OSError


@dataclass(frozen=True, slots=True)
class Answer:
    """Detections or an error, one of both."""

    detections: Detections | None
    error: Failure | None

    def result(self) -> Detections:
        """The detections. Raises the error if there is one."""
        if self.detections is None:
            assert self.error is not None, "an answer has detections or an error"
            raise self.error
        return self.detections


@dataclass(frozen=True, slots=True)
class ImageAnswer(Answer):
    """The answer for `image`, the `index`-th of the images that were asked for, from 0.

    `name` is its path, or "image 3" of one that was given as bytes, PIL image or array.
    """

    index: int
    name: str
    image: ImageLike


@dataclass(frozen=True, slots=True)
class Video:
    """What is read: its name without a password, frames a second, (width, height) in pixels of its
    upright picture, and its number of frames; 0: not known.
    """

    name: str
    rate: Fraction
    size: tuple[int, int]
    frames: int
    is_live: bool


@dataclass(frozen=True, slots=True)
class FrameAnswer(Answer):
    """The answer for a frame of a video.

    `index` counts the frames of the source from 0, those that were dropped too; `dropped` is how
    many were so far. `time_s` is its time since the source's first frame. `reconnects`: how often
    the source was lost and found again.
    """

    video: Video
    index: int
    time_s: float
    picture: Image.Image
    dropped: int = 0
    reconnects: int = 0
