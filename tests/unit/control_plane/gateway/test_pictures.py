import asyncio
import io
import threading

import pytest
from PIL import Image

from control_plane.gateway.rest import pictures
from yolopool.errors import ImageNotDecodable, ImageTooLarge, QueueFull
from yolopool.v1 import detection_pb2

ANSWER = detection_pb2.DetectResponse(image_width=4, image_height=3)


def png(width: int = 4, height: int = 3) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("media_type", list(pictures.FORMATS))
def test_the_file_is_of_the_kind_that_was_asked_for(media_type: str) -> None:
    drawn = Image.open(io.BytesIO(pictures.drawn(png(), ANSWER, media_type)))
    assert (drawn.get_format_mimetype(), drawn.size) == (media_type, (4, 3))


def test_pixels_are_bounded_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 89_999)
    # Cut off behind its header: to decode it would be another error.
    with pytest.raises(ImageTooLarge, match="300 x 300 pixels"):
        pictures.drawn(png(300, 300)[:-50], ANSWER, "image/png")


@pytest.mark.parametrize(
    "encoded",
    [b"", b"nothing", png(300, 300)[:-50], png(5, 3)],
    ids=["none", "text", "cut", "another"],
)
def test_what_can_not_be_drawn_on(encoded: bytes) -> None:
    with pytest.raises(ImageNotDecodable, match="application/json") as raised:
        pictures.drawn(encoded, ANSWER, "image/png")
    assert "object at" not in raised.value.message


async def test_the_line_is_bounded_and_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_WAITING", 3)
    free = threading.Event()
    monkeypatch.setattr(pictures, "drawn", lambda *_: b"x" if free.wait(10) else b"")
    line = pictures.Pictures()
    waiting = [asyncio.create_task(line.draw(b"", ANSWER, "image/png")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as raised:
        await line.draw(b"", ANSWER, "image/png")
    assert raised.value.retry_after_s
    waiting[2].cancel()  # a caller leaves
    free.set()
    assert await asyncio.gather(*waiting[:2]) == [b"x", b"x"]
    assert await line.draw(b"", ANSWER, "image/png") == b"x"
    line.close()
