"""Protobuf's text format as a tree that knows its lines, without a schema.

The words are protobuf's own tokenizer's; a schema would say less: which line an unknown field is on
is what a person needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format

Scalar = str | int | float | bool
_CLOSING = {"{": "}", "<": ">"}
_MAX_LEVELS = 100  # as protobuf's own readers have it


class NotTextFormat(Exception):
    """The text is not of the format; the message has the line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A field with one value: a scalar (an enum's word is a str), or the fields of a message.

    A list `[1, 2]` is one entry a value. `path` has the names of the messages around it too.
    """

    path: str
    line: int
    value: "Scalar | tuple[Entry, ...]"

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def fields(self) -> "tuple[Entry, ...]":
        """Of a message; of a scalar, none."""
        return self.value if isinstance(self.value, tuple) else ()

    def all(self, name: str) -> "tuple[Entry, ...]":
        """The fields of this name, in their order."""
        return tuple(field for field in self.fields if field.name == name)

    def one(self, name: str) -> "Entry | None":
        """The field of this name; the last one, as protobuf has it."""
        found = self.all(name)
        return found[-1] if found else None


def parse(text: str) -> Entry:
    """The whole text as one message without a name. Raises NotTextFormat."""
    words: Any = text_format.Tokenizer(text.split("\n"))  # Any: its stubs are not its code's
    try:
        return Entry("", 1, tuple(_fields(words, "", "")))
    except text_format.ParseError as error:
        raise NotTextFormat(str(error)) from None


def _line(words: Any) -> int:
    line: int = words.ParseError("").GetLine()
    return line


def _fields(words: Any, before: str, closing: str) -> Iterator[Entry]:
    if before.count(".") > _MAX_LEVELS:
        raise words.ParseError(f"more than {_MAX_LEVELS} messages within each other")
    while not (closing and words.TryConsume(closing)):
        if words.AtEnd():
            if closing:
                raise words.ParseError(f"{closing} is missing")
            return
        line = _line(words)
        path = before + words.ConsumeIdentifier()
        colon = words.TryConsume(":")
        if words.TryConsume("["):
            while not words.TryConsume("]"):
                yield Entry(path, _line(words), _value(words, path, colon))
                words.TryConsume(",")
        else:
            yield Entry(path, line, _value(words, path, colon))
        if not words.TryConsume(","):
            words.TryConsume(";")


def _value(words: Any, path: str, colon: bool) -> "Scalar | tuple[Entry, ...]":
    for opening, closing in _CLOSING.items():
        if words.TryConsume(opening):
            return tuple(_fields(words, f"{path}.", closing))
    if not colon:
        raise words.ParseError("a value needs a colon before it")
    return _scalar(words)


def _scalar(words: Any) -> Scalar:
    value: Scalar
    if words.token[:1] in ("'", '"'):
        value = words.ConsumeString()
        return value
    for read in (words.ConsumeInteger, words.ConsumeFloat):
        try:
            value = read()
        except text_format.ParseError:
            continue
        return value
    word: str = words.ConsumeIdentifier()
    return word == "true" if word in ("true", "false") else word
