"""Lines of the request log as columns: a few dozen bytes a request, so that gigabytes fit. Pure.

Beyond MAX_ROWS every second row is dropped, again and again, so that a table of any log is bounded
and its rows stay spread over all of it.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# float32 as they are kept, float64 where they were computed with.
Numbers = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MAX_ROWS = 600_000
# Columns of numbers that have the name of their field; what a line lacks is NaN.
NUMBERS = (
    "version", "client_retry", "deadline_ms", "input_width", "input_height", "letterbox_width",
    "letterbox_height", "batch_size", "cold", "memory_retries", "queue_length",
    "route_ms", "load_wait_ms", "queue_ms", "decode_ms", "preprocess_ms", "transfer_ms",
    "inference_ms", "postprocess_ms", "total_ms", "device_used_bytes", "device_free_bytes",
    "device_utilisation", "device_clock_ratio", "host_load", "hit", "sampled",
)  # fmt: skip
# Another: 1 where the device says why its clock is low. It may not know.
THROTTLED = "throttled"
# Columns of texts, each a number in `texts`; an absent one is the empty text.
TEXTS = ("outcome", "model", "device", "worker", "principal")
UNKNOWN = float("nan")
# What a line that can't be read raises, as JSON or as a request.
BROKEN = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class Rows:
    """`numbers` and `codes` by the name of the column, all of one length; `texts` by column what a
    code means. `times`: Unix seconds; `places`: which line of all that were read, from 1. `each`:
    how many lines each row stands for.
    """

    def __init__(
        self,
        numbers: Mapping[str, Numbers],
        codes: Mapping[str, I64],
        texts: Mapping[str, Sequence[str]],
        times: Numbers,
        places: I64,
        each: int = 1,
    ) -> None:
        self.numbers, self.codes, self.texts = numbers, codes, texts
        self.times, self.places = times, places
        self._each = each

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, name: str) -> Numbers:
        return self.numbers[name]

    def where(self, mask: Mask | I64) -> "Rows":
        """The rows of a mask, or at indices."""
        return Rows(
            {name: column[mask] for name, column in self.numbers.items()},
            {name: column[mask] for name, column in self.codes.items()},
            self.texts,
            self.times[mask],
            self.places[mask],
            self._each,
        )

    @property
    def requests(self) -> Numbers:
        """How many requests each row stands for: some were not logged, or are left out here."""
        share = self.numbers["sampled"].astype(np.float64)
        return np.asarray(self._each / np.where(share > 0, share, 1.0))

    def is_text(self, name: str, text: str) -> Mask:
        """Where a column has a text."""
        texts = self.texts[name]
        code = texts.index(text) if text in texts else -1
        return np.asarray(self.codes[name] == code)

    def text(self, name: str, code: int) -> str:
        return self.texts[name][code]

    @property
    def ok(self) -> Mask:
        """Requests that were answered."""
        return self.is_text("outcome", "OK")


class RowsBuilder:
    """Collects lines. `dropped`: rows that were left out to stay within `max_rows`."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._numbers = {name: array("f") for name in (*NUMBERS, THROTTLED)}
        self._codes = {name: array("i") for name in TEXTS}
        self._texts: dict[str, dict[str, int]] = {name: {"": 0} for name in TEXTS}
        self._times, self._places = array("d"), array("q")
        self._stride, self._seen = 1, 0
        self.dropped = 0

    def add(self, line: Mapping[str, Any], time_s: float, place: int) -> None:
        """One line of a request, written at that Unix time. Raises one of BROKEN if it is none."""
        self._seen += 1
        if self._seen % self._stride:
            self.dropped += 1
            return
        # All is read before anything is kept: a broken line leaves nothing.
        version = line.get("version", 0)
        model = f"{line['model']}@{version}" if version else str(line["model"])
        numbers = [float(line.get(name, UNKNOWN)) for name in NUMBERS]
        numbers.append(float(bool(line.get(THROTTLED))))
        words = (line["outcome"], model, *(line.get(name, "") for name in TEXTS[2:]))
        if not all(isinstance(word, str) for word in words):
            raise TypeError("a text is none")
        for column, number in zip(self._numbers.values(), numbers, strict=True):
            column.append(number)
        for name, word in zip(TEXTS, words, strict=True):
            known = self._texts[name]
            self._codes[name].append(known.setdefault(printable(word), len(known)))
        self._times.append(time_s)
        self._places.append(place)
        if len(self._times) >= self._max_rows:
            self._thin()

    def _thin(self) -> None:
        before = len(self._times)
        columns: list[Any] = [*self._numbers.values(), *self._codes.values()]
        columns += [self._times, self._places]
        for column in columns:
            column[:] = column[::2]
        self._stride *= 2
        self.dropped += before - len(self._times)

    def rows(self) -> Rows:
        """All rows so far; nothing may be added any more, since they are not copied."""
        return Rows(
            {name: np.frombuffer(column, np.float32) for name, column in self._numbers.items()},
            {name: np.array(column, np.int64) for name, column in self._codes.items()},
            {name: tuple(known) for name, known in self._texts.items()},
            np.frombuffer(self._times, np.float64),
            np.frombuffer(self._places, np.int64),
            self._stride,
        )


def printable(text: str) -> str:
    """A text without what moves a terminal's cursor, or is half of a character: callers choose some
    of them.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else "\ufffd" for one in text)


def rows_of(lines: Iterable[tuple[float, Mapping[str, Any]]]) -> Rows:
    """The rows of lines that are all of requests, each with its Unix time."""
    builder = RowsBuilder()
    for place, (time_s, line) in enumerate(lines, 1):
        builder.add(line, time_s, place)
    return builder.rows()
