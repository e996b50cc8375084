"""Changes inputs at random: bytes, JSON values. Pure: chance is an argument.

For machines without a fuzzer that watches coverage, and for what one can't do with bytes alone.
"""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal

# Numbers at which code has borders.
NUMBERS = (
    0, 1, 2, 7, 8, 9, 16, 31, 32, 63, 64, 65, 100, 127, 128, 255, 256, 300, 511, 512, 1000, 1024,
    4095, 4096, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53,
    2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
FLOATS = (
    0.0, -0.0, 0.5, 1.0, 1.0000001, -1.0, 1e-9, 1e-45, 255.0, 1e9, 3.4e38, 1e308, float("inf"),
    float("-inf"), float("nan"),
)  # fmt: skip
TEXTS = (
    "", " ", "a", "*", "/", "..", "../..", "\0", "\n", "\r\n", "%s", "%00", "a/b", "é", "\u2028",
    "\U0001f600", "a\u0301", "\ufeff", "0", "-1", "1e9", "NaN", "null", "{}", "[", "'", '"',
    "x" * 64, "x" * 300, "a/" * 40, "9" * 400,
)  # fmt: skip
_MOST_CHANGES = 6
# In the place of a value that is nested deeper than Python's own writer goes.
_DEEP = "nested deeply"


def of_bytes(
    data: bytes, rng: Random, seeds: Sequence[bytes], words: Sequence[bytes], most_bytes: int
) -> bytes:
    """One to six changes of bytes."""
    changed = bytearray(data)
    for _ in range(_count(rng)):
        rng.choice(_CHANGES)(changed, rng, seeds, words)
        del changed[most_bytes:]
    return bytes(changed)


def _count(rng: Random) -> int:
    count = 1
    while count < _MOST_CHANGES and rng.random() < 0.45:
        count += 1
    return count


def _at(data: bytearray, rng: Random) -> int:
    return rng.randrange(len(data) + 1)


def _range(data: bytearray, rng: Random) -> slice:
    start = _at(data, rng)
    longest = max(1, len(data) - start)
    return slice(start, start + min(longest, 1 << rng.randrange(longest.bit_length())))


def _flip(data: bytearray, rng: Random, *_: Any) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: Random, *_: Any) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(
            (0, 1, 0x7F, 0x80, 0xFE, 0xFF, 0x0A, 0x20, 0x22)
        )


def _insert(data: bytearray, rng: Random, *_: Any) -> None:
    at = _at(data, rng)
    data[at:at] = rng.randbytes(1 << rng.randrange(6))


def _delete(data: bytearray, rng: Random, *_: Any) -> None:
    del data[_range(data, rng)]


def _repeat(data: bytearray, rng: Random, *_: Any) -> None:
    part = _range(data, rng)
    data[part.stop : part.stop] = data[part] * (1 << rng.randrange(14) if rng.random() < 0.2 else 1)


def _move(data: bytearray, rng: Random, *_: Any) -> None:
    part, at = bytes(data[_range(data, rng)]), _at(data, rng)
    data[at : at + len(part)] = part


def _word(data: bytearray, rng: Random, _: Any, words: Sequence[bytes]) -> None:
    at = _at(data, rng)
    word = rng.choice(words) if words else rng.choice(TEXTS).encode()
    data[at : at + (len(word) if rng.random() < 0.5 else 0)] = word


def _number(data: bytearray, rng: Random, *_: Any) -> None:
    """Puts a number of some width somewhere, or moves the one that is there a little."""
    width = rng.choice((1, 2, 4, 8))
    if len(data) < width:
        return
    at = rng.randrange(len(data) - width + 1)
    order: Literal["little", "big"] = "little" if rng.random() < 0.5 else "big"
    value = rng.choice(NUMBERS)
    if rng.random() < 0.5:
        value = int.from_bytes(data[at : at + width], order) + rng.randint(-16, 16)
    data[at : at + width] = (value % 256**width).to_bytes(width, order)


def _digits(data: bytearray, rng: Random, *_: Any) -> None:
    """Another number in the place of one that is written in digits."""
    places = [at for at, byte in enumerate(data) if 48 <= byte <= 57][:4096]
    if not places:
        return
    end = start = rng.choice(places)
    while end < len(data) and 48 <= data[end] <= 57:
        end += 1
    data[start:end] = str(rng.choice(NUMBERS)).encode()


def _splice(data: bytearray, rng: Random, seeds: Sequence[bytes], *_: Any) -> None:
    if seeds:
        other = bytearray(rng.choice(seeds))
        data[_at(data, rng) :] = other[_at(other, rng) :]


def _cut(data: bytearray, rng: Random, *_: Any) -> None:
    del data[_at(data, rng) :]


_CHANGES: tuple[Callable[..., None], ...] = (
    _flip, _flip, _set, _insert, _delete, _repeat, _move, _word, _word, _number, _number, _digits,
    _splice, _cut,
)  # fmt: skip


def of_json(data: bytes, rng: Random, words: Sequence[str]) -> bytes:
    """A JSON text with one to six of its values changed; one that is none, as it is."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(_count(rng)):
        value = changed_value(value, rng, words, 0)
    text = json.dumps(value)
    if _DEEP in text:
        levels = 1 << rng.randrange(7, 14)
        text = text.replace(f'"{_DEEP}"', "[" * levels + "]" * levels)
    return text.encode()


def changed_value(value: Any, rng: Random, words: Sequence[str], depth: int) -> Any:
    """A JSON value with one part of it, or all of it, changed."""
    if depth > 12 or not isinstance(value, dict | list) or not value or rng.random() < 0.08:
        return any_value(rng, words, 0)
    if isinstance(value, list):
        kept = list(value)
        match rng.randrange(6):
            case 0:
                del kept[rng.randrange(len(kept))]
            case 1:
                kept += [rng.choice(kept)] * (1 << rng.randrange(8))
            case 2:
                kept.insert(rng.randrange(len(kept) + 1), any_value(rng, words, 0))
            case _:
                at = rng.randrange(len(kept))
                kept[at] = changed_value(kept[at], rng, words, depth + 1)
        return kept
    fields = dict(value)
    key = rng.choice(list(fields))
    match rng.randrange(8):
        case 0:
            del fields[key]
        case 1:
            fields[rng.choice(words) if words else rng.choice(TEXTS)] = any_value(rng, words, 0)
        case 2:
            fields[rng.choice(TEXTS)] = fields.pop(key)
        case _:
            fields[key] = changed_value(fields[key], rng, words, depth + 1)
    return fields


def any_value(rng: Random, words: Sequence[str], depth: int) -> Any:
    """Any JSON value, and NaN and infinities, which Python reads and writes."""
    kind = rng.randrange(12)
    if kind < 3:
        return rng.choice(NUMBERS) * rng.choice((1, 1, -1))
    if kind < 5:
        return rng.choice(FLOATS)
    if kind < 8:
        return rng.choice(words) if words and rng.random() < 0.6 else rng.choice(TEXTS)
    if kind == 8:
        return rng.choice((True, False, None))
    if depth > 3:
        return None
    if kind == 9:
        return [any_value(rng, words, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 10:
        names = words or TEXTS
        return {
            rng.choice(names): any_value(rng, words, depth + 1) for _ in range(rng.randrange(4))
        }
    return _DEEP
