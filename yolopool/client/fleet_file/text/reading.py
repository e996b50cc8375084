"""Reads a record of `declared` from a tree of YAML: every fault with its line and key. Pure."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from yolopool.client.fleet_file.declared import keys
from yolopool.client.fleet_file.text.yaml_lines import Items, Node, Pairs, Text

MAX_FAULTS = 20
_INTEGER = re.compile(r"[-+]?\d{1,16}")
_NUMBER = re.compile(r"[-+]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:[eE][-+]?\d{1,3})?")
_FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_BAD: Any = None  # what stands for a value with a fault: no record is made then


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, in which line (0: of the whole) and at which key."""

    line: int
    key: str
    why: str

    def said(self, file: str) -> str:
        place = f"{file}:{self.line}" if self.line else file
        return ": ".join(filter(None, (place, self.key, self.why)))


@dataclass(slots=True)
class Faults:
    """The first MAX_FAULTS that were found, and how many there are."""

    found: list[Fault] = field(default_factory=list)
    count: int = 0

    def add(self, line: int, key: str, why: str) -> Any:
        self.count += 1
        if len(self.found) < MAX_FAULTS:
            self.found.append(Fault(line, key, why))
        return _BAD


def read_record(kind: Any, node: Node, where: str, faults: Faults) -> Any:
    """A record of this kind; what it is worth nothing if faults were added."""
    if not isinstance(node, Pairs):
        return faults.add(node.line, where, f"give keys, such as {next(iter(keys(kind)))}: ...")
    before, known, hints = faults.count, keys(kind), _hints(kind)
    at, found = {"": node.line}, dict[str, Any]()
    for name_node, value in node.pairs:
        name = _key_of(name_node, where, faults)
        if name is _BAD:
            continue
        path = f"{where}.{name}" if where else name
        if name in at:
            faults.add(name_node.line, path, f"is there twice, first in line {at[name]}")
        elif name not in known:
            faults.add(name_node.line, path, f"is no key{meant(name, known)}")
        else:
            found[name] = _value(hints[name], value, path, known[name].metadata, faults)
        at[name] = name_node.line
    for name, one in known.items():
        required = one.default is MISSING and one.default_factory is MISSING
        if required and name not in at:
            faults.add(node.line, where, f"{name} is missing: {one.metadata['doc']}")
    return kind(**found, at=at) if faults.count == before else _BAD


def meant(word: str, known: Iterable[str]) -> str:
    """What may have been meant by a word that is not known, as the end of a sentence."""
    words = sorted(known)
    close = get_close_matches(word, words, 1, 0.7)
    return f": did you mean {close[0]}?" if close else f": one of {', '.join(words)}"


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _key_of(node: Node, where: str, faults: Faults) -> Any:
    if isinstance(node, Text):
        return node.text
    return faults.add(node.line, where, "a key is one word")


def _value(hint: Any, node: Node, where: str, about: Mapping[str, Any], faults: Faults) -> Any:
    hint = _given(hint)
    if isinstance(node, Text) and node.is_nothing:
        return faults.add(node.line, where, "has no value: give one, or leave the key out")
    if is_dataclass(hint):
        return read_record(hint, node, where, faults)
    if get_origin(hint) is tuple:
        return _list(get_args(hint)[0], node, where, about, faults)
    if get_origin(hint) is Mapping:
        return _mapping(get_args(hint), node, where, about, faults)
    if not isinstance(node, Text):
        return faults.add(node.line, where, "give one value")
    if hint is str:
        return _word(node, where, about, faults)
    if hint is bool:
        return _flag(node, where, faults)
    return _number(hint, node, where, about, faults)


def _given(hint: Any) -> Any:
    """Of what may be left out, the type that it has where it is not."""
    others = [one for one in get_args(hint) if one is not NoneType]
    return others[0] if NoneType in get_args(hint) else hint


def _list(of: Any, node: Node, where: str, about: Mapping[str, Any], faults: Faults) -> Any:
    if not isinstance(node, Items):
        return faults.add(node.line, where, "give a list: [a, b], or a line '- a' for each")
    return tuple(
        _value(of, one, f"{where}[{number}]", about, faults)
        for number, one in enumerate(node.items)
    )


def _mapping(of: Any, node: Node, where: str, about: Mapping[str, Any], faults: Faults) -> Any:
    if not isinstance(node, Pairs):
        return faults.add(node.line, where, "give names and values: {a: b}, or a line 'a: b' each")
    found: dict[Any, Any] = {}
    # Choices are those of the names; bounds are those of the values.
    inner = {**about, "choices": ()}
    for name_node, value in node.pairs:
        text = _key_of(name_node, where, faults)
        if text is _BAD:
            continue
        path = f"{where}.{text}"
        if about["choices"] and text not in about["choices"]:
            faults.add(name_node.line, path, f"is not known{meant(text, about['choices'])}")
        elif of[0] is int and not text.isdecimal():
            faults.add(name_node.line, path, "the name is a number")
        elif (name := int(text[:15]) if of[0] is int else text) in found:
            faults.add(name_node.line, path, "is there twice")
        else:
            found[name] = _value(of[1], value, path, inner, faults)
    return found


def _word(node: Text, where: str, about: Mapping[str, Any], faults: Faults) -> Any:
    if about["choices"] and node.text not in about["choices"]:
        return faults.add(
            node.line, where, f"{node.text[:80]!r}{meant(node.text, about['choices'])}"
        )
    return node.text


def _flag(node: Text, where: str, faults: Faults) -> Any:
    if not node.plain or node.text not in _FLAGS:
        return faults.add(node.line, where, f"{node.text[:80]!r}: give true or false")
    return _FLAGS[node.text]


def _number(hint: Any, node: Text, where: str, about: Mapping[str, Any], faults: Faults) -> Any:
    pattern, noun = (_INTEGER, "whole number") if hint is int else (_NUMBER, "number")
    if not node.plain or not pattern.fullmatch(node.text):
        return faults.add(node.line, where, f"{node.text[:80]!r}: give a {noun}, without quotes")
    value = int(node.text) if hint is int else float(node.text)
    least, most = about["least"], about["most"]
    if not math.isfinite(value) or (least is not None and value < least):
        return faults.add(node.line, where, f"{value:g}: give at least {least or 0:g}")
    if most is not None and value > most:
        return faults.add(node.line, where, f"{value:g}: give at most {most:g}")
    return value
