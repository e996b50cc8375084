"""One `detect`: every source is asked for by itself, and one that fails loses no other."""

import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ParamSpec

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from yolopool.cli.console import bars
from yolopool.cli.detect.outputs import Answered, Failure, Output, Result
from yolopool.cli.detect.told import Told
from yolopool.client.client import Client
from yolopool.client.images import ImageLike
from yolopool.client.media.outcomes import FrameAnswer
from yolopool.client.media.sources import Source, SourceKind
from yolopool.client.requests import DetectOptions
from yolopool.errors import (
    ExtraMissing,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    VideoNotReadable,
    YolopoolError,
)

_OF_ALL = (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
STDIN = "-"
_LOOK_UP_S = 0.2
Numbered = tuple[int, Source]
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of the pool; `window` None: as the client's methods have it."""

    model: str
    options: DetectOptions
    window: int | None
    track: bool
    jpeg_quality: int | None
    lost_s: float


class Run:
    """Asks for all sources in their order; several live ones at the same time."""

    def __init__(self, client: Client, asked: Asked, told: Told, outputs: Sequence[Output]) -> None:
        self._client, self._asked = client, asked
        self._told, self._outputs = told, outputs
        # Live sources are read on a thread each. What they write is written by one thread, in the
        # order of arrival (a lock would go to a fast source again and again), and no Ctrl-C cuts
        # it short.
        self._writer = ThreadPoolExecutor(1, "writer")
        self._stop = threading.Event()

    def all(self, sources: Sequence[Source], quiet: bool) -> None:
        """Raises the error that all sources would have."""
        columns = (
            TextColumn("{task.description}"), BarColumn(),
            TextColumn("{task.completed} {task.fields[more]}"), TimeElapsedColumn(),
        )  # fmt: skip
        with bars(*columns, quiet=quiet) as bar:
            for kind, group in groupby(enumerate(sources), lambda one: one[1].kind):
                numbered = list(group)
                if kind is SourceKind.IMAGE:
                    self._images(numbered, bar)
                elif kind is SourceKind.VIDEO:
                    for number, source in numbered:
                        self._video(number, source, bar)
                else:
                    self._live(numbered, bar)

    def close(self) -> None:
        """Completes what is written."""
        self._stop.set()
        self._write(self._each, "", lambda output: output.close())

    def _images(self, numbered: Sequence[Numbered], bar: Progress) -> None:
        task = bar.add_task("images", total=len(numbered), more="")
        answers = self._client.detect_many(
            [_image_of(source) for _, source in numbered], self._asked.model,
            **_window(self._asked.window), **self._asked.options,
        )  # fmt: skip
        with closing(answers):
            for (number, source), answer in zip(numbered, answers, strict=True):
                bar.advance(task)
                self._write(self._take, number, source, answer, None)

    def _live(self, numbered: Sequence[Numbered], bar: Progress) -> None:
        """Until all have ended, or Ctrl-C."""
        ended: queue.Queue[BaseException | None] = queue.Queue()

        def watch(number: int, source: Source) -> None:
            try:
                self._video(number, source, bar)
            except BaseException as error:
                ended.put(error)
            else:
                ended.put(None)

        for one in numbered:
            # A daemon: a source that is lost right now must not hold back the end.
            threading.Thread(target=watch, args=one, name="live", daemon=True).start()
        left = len(numbered)
        with _interrupts() as came, suppress(KeyboardInterrupt):
            # Looks up now and then: a signal that another thread received wakes nobody here.
            while left and not came():
                with suppress(queue.Empty):
                    if (failure := ended.get(timeout=_LOOK_UP_S)) is not None:
                        self._stop.set()
                        raise failure
                    left -= 1
        self._stop.set()

    def _video(self, number: int, source: Source, bar: Progress) -> None:
        task = bar.add_task(source.name, total=None, more="")
        place = source.place if source.kind is SourceKind.LIVE else Path(source.place)
        try:
            answers = self._client.detect_video(
                place, self._asked.model, track=self._asked.track, window=self._asked.window,
                jpeg_quality=self._asked.jpeg_quality, lost_s=self._asked.lost_s,
                **self._asked.options,
            )  # fmt: skip
            with closing(answers):
                for answer in answers:
                    if self._stop.is_set():
                        return
                    _show(bar, task, answer)
                    self._write(self._take, number, source, answer, answer)
        except VideoNotReadable as error:
            self._write(self._told.error, "", error)
        finally:
            self._write(self._each, source.name, lambda output: output.end(number))

    def _write(self, act: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Raises what it raises."""
        self._writer.submit(act, *args, **kwargs).result()

    def _take(
        self, number: int, source: Source, answer: Answered, frame: FrameAnswer | None
    ) -> None:
        if self._stop.is_set():
            return
        if answer.error is not None:
            if self._ends_with(answer.error):
                raise answer.error
            self._told.failed(source, answer)
            self._each(source.name, lambda output: output.fail(source, number, answer))
            return
        result = Result(source, number, answer.result(), frame)
        self._told.result(result)
        self._each(source.name, lambda output: output.add(result))

    def _each(self, about: str, act: Callable[[Output], None]) -> None:
        """An output that fails loses no other."""
        for output in self._outputs:
            try:
                act(output)
            except (BrokenPipeError, ExtraMissing):  # all others would fail alike
                raise
            except (YolopoolError, OSError) as error:
                self._told.error(about, error)

    def _ends_with(self, error: Failure) -> bool:
        """Whether all others would fail alike: nobody answers, or nothing was answered yet and the
        error is of the model or the options.
        """
        if isinstance(error, OSError) or error.reason.startswith("IMAGE_"):
            return False
        of_all = isinstance(error, _OF_ALL) and not self._told.answered
        return of_all or error.reason == "UNAVAILABLE"


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C came; the second one is a KeyboardInterrupt. As an exception the first one
    would be lost where it is raised inside a destructor.
    """
    came = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _image_of(source: Source) -> ImageLike:
    return sys.stdin.buffer.read() if source.place == STDIN else Path(source.place)


def _window(window: int | None) -> dict[str, Any]:
    return {} if window is None else {"window": window}


def _show(bar: Progress, task: TaskID, answer: FrameAnswer) -> None:
    words = [f"{answer.dropped} dropped"] if answer.dropped else []
    words += [f"{answer.reconnects} reconnects"] if answer.reconnects else []
    total = answer.video.frames or None
    bar.update(task, completed=answer.index + 1, total=total, more=", ".join(words))
