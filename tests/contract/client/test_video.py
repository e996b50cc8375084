"""Videos, cameras and streams by both clients: real files, real sockets, the library's decoder."""

import asyncio
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.contract.client.cameras import RATE, SIZE, Camera, square_at, write_video
from tests.contract.scripted_pool import ScriptedPool
from yolopool import AsyncClient, Client, errors
from yolopool.client.media import newest_frame
from yolopool.client.media.outcomes import FrameAnswer
from yolopool.client.media.sources import sources_of
from yolopool.client.media.video_reader import VideoReader
from yolopool.client.media.video_writer import VideoWriter

Watch = Callable[..., list[FrameAnswer]]
FRAMES = 20


@pytest.fixture(scope="module")
def pool() -> Iterator[ScriptedPool]:
    with ScriptedPool() as running:
        yield running


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_video(path, FRAMES)
    return path


@pytest.fixture(params=["blocking", "asyncio"])
def watch(request: pytest.FixtureRequest, pool: ScriptedPool) -> Watch:
    """The first `count` answers about a video, by either client."""

    def blocking(source: Any, count: int = 10**6, **options: Any) -> list[FrameAnswer]:
        with Client(pool.address) as client:
            answers = client.detect_video(source, "shapes", **options)
            found = [answer for answer, _ in zip(answers, range(count), strict=False)]
            answers.close()
            return found

    def inside(source: Any, count: int = 10**6, **options: Any) -> list[FrameAnswer]:
        async def run() -> list[FrameAnswer]:
            found = []
            async with AsyncClient(pool.address) as client:
                answers = client.detect_video(source, "shapes", **options)
                async for answer in answers:
                    found.append(answer)
                    if len(found) == count:
                        break
                await answers.aclose()
            return found

        return asyncio.run(run())

    return blocking if request.param == "blocking" else inside


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[Camera]:
    monkeypatch.setattr(newest_frame, "_BACK_OFF_S", (0.01,))
    camera = Camera()
    yield camera
    camera.close()


def test_every_frame_of_a_file_in_order(watch: Watch, pool: ScriptedPool, clip: Path) -> None:
    pool.script.calls.clear()
    seen: list[tuple[int, int]] = []
    answers = watch(clip, window=3, request_id="r", progress=lambda *far: seen.append(far))
    assert [answer.index for answer in answers] == list(range(FRAMES))
    assert [answer.time_s for answer in answers] == pytest.approx(
        [number / RATE for number in range(FRAMES)]
    )
    for answer in answers:
        assert answer.result().class_name == ("square", "circle")
        assert abs(square_at(answer.picture) - 4 * answer.index % 120) <= 2
    video = answers[0].video
    assert (video.size, int(video.rate), video.frames) == (SIZE, RATE, FRAMES)
    assert not video.is_live
    assert seen == [(number + 1, FRAMES) for number in range(FRAMES)]
    # Sent as they are: what the server saw is what is told.
    sent = {call.request_id: call for name, call, _ in pool.script.calls if name == "Detect"}
    assert set(sent) == {f"r-{number}" for number in range(FRAMES)}
    assert sent["r-7"].raw.data == np.asarray(answers[7].picture).tobytes()


def test_frames_as_jpeg(watch: Watch, pool: ScriptedPool, clip: Path) -> None:
    (answer,) = watch(clip, count=1, jpeg_quality=80)
    sent = pool.script.last("Detect")
    assert sent.encoded.startswith(b"\xff\xd8")
    assert answer.result().image_size == SIZE


def test_a_frame_that_fails_ends_no_other(watch: Watch, clip: Path) -> None:
    answers = watch(clip, priority="soon")
    assert len(answers) == FRAMES
    for answer in answers:
        with pytest.raises(errors.InvalidOption, match="priority"):
            answer.result()


def test_objects_are_numbered_from_frame_to_frame(watch: Watch, clip: Path) -> None:
    def tracks() -> list[list[int]]:
        found = [answer.result().tracker_id for answer in watch(clip, track=True)]
        return [ids.tolist() for ids in found if ids is not None]

    first = tracks()
    # An object has a number from its second frame on.
    assert first[0] == [-1, -1]
    assert first[1:] == [first[-1]] * (FRAMES - 1)
    assert len(set(first[-1])) == 2
    # Another source begins its own count.
    assert tracks() == first


def test_what_is_no_video_is_said(watch: Watch, tmp_path: Path) -> None:
    text = tmp_path / "clip.mp4"
    text.write_text("no video")
    for source, said in (
        (text, "clip.mp4"),
        (tmp_path / "none.mp4", "none.mp4"),
        (63, "camera 63"),
    ):
        with pytest.raises(errors.VideoNotReadable, match=said):
            watch(source)
    with pytest.raises(errors.InvalidOption, match="calls in flight"):
        watch(text, window=0)
    with pytest.raises(TypeError, match="colour"):
        watch(text, colour=True)


def test_a_file_that_ends_early_gives_what_it_has(watch: Watch, tmp_path: Path, clip: Path) -> None:
    cut = tmp_path / "cut.ts"
    write_video(cut, FRAMES)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    assert 3 < len(watch(cut)) < FRAMES


@pytest.mark.parametrize("kind", ["http", "rtsp"])
def test_a_stream_that_breaks_off_is_opened_again(watch: Watch, camera: Camera, kind: str) -> None:
    answers = watch(getattr(camera, kind), count=4)
    assert answers[0].video.is_live
    assert "secret" not in answers[0].video.name
    indices = [answer.index for answer in answers]
    assert indices == sorted(set(indices))
    # The camera cuts each viewer off: those who stay see it come back.
    assert watch(getattr(camera, kind), count=120)[-1].reconnects >= 1
    assert camera.views >= 3
    if kind == "rtsp":
        assert camera.asked[:4] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]


def test_a_stream_that_is_lost_is_an_error(watch: Watch, camera: Camera) -> None:
    camera.close()
    with pytest.raises(errors.VideoNotReadable, match="check the address"):
        watch(camera.http)
    camera.again()
    with Client("127.0.0.1:1") as client:
        answers = client.detect_video(camera.http, "shapes", lost_s=0.0, timeout_s=0.01)
        assert isinstance(next(answers).error, errors.YolopoolError)
        camera.close()
        with pytest.raises(errors.VideoNotReadable):
            list(answers)


def turned(video: Path, degrees: int, to: Path) -> Path:
    """The same frames with the turn that a phone notes in the head of its track."""
    one, data = 0x10000, video.read_bytes()
    turns = {
        0: (one, 0, 0, one),
        90: (0, one, -one, 0),
        180: (-one, 0, 0, -one),
        270: (0, -one, one, 0),
    }

    def matrix(of: int) -> bytes:
        a, b, c, d = turns[of]
        return struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)

    place = data.index(matrix(0), data.index(b"tkhd"))
    to.write_bytes(data[:place] + matrix(degrees) + data[place + 36 :])
    return to


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_those_that_the_model_library_reads(
    clip: Path, tmp_path: Path, degrees: int
) -> None:
    """OpenCV's, upright, to the last bit."""
    reader = VideoReader(sources_of(turned(clip, degrees, tmp_path / "turned.mp4"))[0])
    theirs = cv2.VideoCapture(str(tmp_path / "turned.mp4"))
    for frame in reader.frames():
        found, expected = theirs.read()
        assert found
        np.testing.assert_array_equal(frame.pixels, expected[:, :, ::-1])
    assert not theirs.read()[0]
    upright = SIZE if degrees % 180 == 0 else SIZE[::-1]
    assert reader.video.size == upright
    reader.close()


@pytest.mark.parametrize("size", [(160, 120), (161, 121)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_is_written_has_the_times_and_the_size_of_its_source(
    tmp_path: Path, clip: Path, size: tuple[int, int], suffix: str
) -> None:
    reader = VideoReader(sources_of(clip)[0])
    frames = list(reader.frames())
    reader.close()
    writer = VideoWriter(tmp_path / f"out{suffix}", replace(reader.video, size=size))
    for frame in frames:
        writer.add(Image.fromarray(frame.pixels).resize(size), frame.time_s)
    writer.close()
    again = VideoReader(sources_of(tmp_path / f"out{suffix}")[0])
    written = list(again.frames())
    again.close()
    assert (again.video.size, int(again.video.rate), len(written)) == (size, RATE, FRAMES)
    times = [frame.time_s for frame in written]
    assert times == pytest.approx([frame.time_s for frame in frames], abs=0.001)
