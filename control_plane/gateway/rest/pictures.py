"""The image with what was found drawn on it, made in a few threads of a bounded line."""

import asyncio
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, UnidentifiedImageError

from yolopool.client.detections import from_response
from yolopool.client.drawing import picture_of
from yolopool.errors import ImageNotDecodable, ImageTooLarge, QueueFull
from yolopool.v1 import detection_pb2

# Two pictures of that many pixels, in all their copies, take about 600 MB.
THREADS, MAX_WAITING, MAX_PIXELS = 2, 16, 40_000_000
# By media type: pillow's format and its settings.
FORMATS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "image/jpeg": ("JPEG", {"quality": 90}),
    "image/png": ("PNG", {"compress_level": 1}),
}


class Pictures:
    """`draw` as often as wanted; `close` at the end."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "pictures")
        self._waiting = 0

    async def draw(
        self, encoded: bytes, answer: detection_pb2.DetectResponse, media_type: str
    ) -> bytes:
        """The file of the picture, upright. Raises QueueFull, ImageTooLarge, and
        ImageNotDecodable for a format that pillow does not read, such as HEIC.
        """
        if self._waiting >= MAX_WAITING:
            raise QueueFull("too many pictures are being drawn: try again", retry_after_s=1.0)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, drawn, encoded, answer, media_type)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def drawn(encoded: bytes, answer: detection_pb2.DetectResponse, media_type: str) -> bytes:
    kind, settings = FORMATS[media_type]
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ImageTooLarge(
                    f"the image has {opened.width} x {opened.height} pixels, and one of at most "
                    f"{MAX_PIXELS} is drawn on: ask for application/json, and draw there"
                )
            results = from_response(answer)
            picture = results.plot(picture_of(opened))
    except UnidentifiedImageError as error:
        raise ImageNotDecodable(
            "no picture can be drawn on a file that pillow does not know, such as HEIC: ask for "
            "application/json, which has the results"
        ) from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageNotDecodable(
            f"no picture can be drawn ({error}): ask for application/json, which has the results"
        ) from error
    stream = io.BytesIO()
    picture.save(stream, kind, **settings)
    return stream.getvalue()
