"""`detect_many`: what is asked about each of many images, and how its answer is told."""

from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import aclosing
from pathlib import Path

from yolopool.client import calls, requests
from yolopool.client.calls import Call
from yolopool.client.detections import Detections
from yolopool.client.images import ImageLike
from yolopool.client.media import sources
from yolopool.client.media.in_flight import (
    Questions,
    Send,
    Start,
    Told,
    check_window,
    in_order,
    in_order_async,
)
from yolopool.client.media.outcomes import ImageAnswer
from yolopool.client.media.sources import SourceKind
from yolopool.client.requests import DetectOptions
from yolopool.errors import InvalidOption

# Called with how many were answered, and of how many if that is known, else 0.
Progress = Callable[[int, int], None]
WINDOW = 8
Images = str | Path | Iterable[ImageLike]
# The image, its number and its name.
Item = tuple[ImageLike, int, str]


class ManyCalls:
    """The questions about each image, and their number in `total`; 0: not known before they were
    read. A path may be a folder or a pattern; videos in it are left out.

    Raises InvalidOption for a path without images, and TypeError for an undeclared option.
    """

    def __init__(self, images: Images, model: str, window: int, options: DetectOptions) -> None:
        requests.refuse_unknown("detect_many", options, DetectOptions)
        self.window = check_window(window)
        self._model, self._options = model, options
        given = [images] if isinstance(images, str | Path) else images
        named = list(_named(given)) if isinstance(given, list | tuple) else _named(given)
        self.total = len(named) if isinstance(named, list) else 0
        self.questions = Questions(_numbered(named), self._ask)

    def _ask(self, item: Item) -> Call[Detections]:
        image, index, _ = item
        options: DetectOptions = {**self._options}
        if name := options.get("request_id"):
            options["request_id"] = f"{name}-{index}"
        return calls.detect(image, self._model, **options)


def answers(
    asked: ManyCalls, start: Start, progress: Progress | None
) -> Generator[ImageAnswer, None, None]:
    for item, told in in_order(asked.questions, start, asked.window):
        yield _answer(item, told, asked.total, progress)


async def answers_async(
    asked: ManyCalls, send: Send, progress: Progress | None
) -> AsyncGenerator[ImageAnswer, None]:
    told_all = in_order_async(asked.questions, send, asked.window)
    async with aclosing(told_all):
        async for item, told in told_all:
            yield _answer(item, told, asked.total, progress)


def _answer(item: Item, told: Told, total: int, progress: Progress | None) -> ImageAnswer:
    image, index, name = item
    if progress is not None:
        progress(index + 1, total)
    if isinstance(told, Detections):
        return ImageAnswer(told, None, index, name, image)
    return ImageAnswer(None, told, index, name, image)


def _numbered(named: Iterable[tuple[ImageLike, str]]) -> Generator[Item, None, None]:
    for index, (image, name) in enumerate(named):
        yield image, index, name or f"image {index}"


def _named(given: Iterable[ImageLike]) -> Generator[tuple[ImageLike, str], None, None]:
    """Each image with its path, folders and patterns opened; of other images no name."""
    for one in given:
        if not isinstance(one, str | Path):
            yield one, ""
            continue
        found = sources.sources_of(one)
        pictures = [source for source in found if source.kind is SourceKind.IMAGE]
        if not pictures:
            raise InvalidOption(f"{found[0].name} is no image: give it to detect_video")
        for source in pictures:
            yield source.place, source.name
