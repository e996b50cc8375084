"""YAML as a tree that knows its lines. A value stays the text that was written: its reader knows
what it is to be. Pure.

Bounds: of bytes, of depth, and of nodes, where an alias counts all that it repeats.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 32 * 1024**2
MAX_NODES = 500_000
MAX_DEPTH = 32
# libyaml's parser is ten times as fast; both give the same events.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})


class NotYaml(Exception):
    """The text can't be read; `line` is where, 0: of the whole."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line, self.why = line, why


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar as it is written; `plain`: without quotes."""

    line: int
    text: str
    plain: bool
    size: int = 1

    @property
    def is_nothing(self) -> bool:
        """Whether it is YAML's null."""
        return self.plain and self.text in _NOTHING


@dataclass(frozen=True, slots=True)
class Items:
    line: int
    items: "tuple[Node, ...]"
    size: int


@dataclass(frozen=True, slots=True)
class Pairs:
    line: int
    pairs: "tuple[tuple[Node, Node], ...]"
    size: int


Node = Text | Items | Pairs


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come."""

    line: int
    is_mapping: bool
    anchor: str | None
    nodes: list[Node] = field(default_factory=list)
    size: int = 1

    def closed(self) -> Node:
        if not self.is_mapping:
            return Items(self.line, tuple(self.nodes), self.size)
        pairs = tuple(zip(self.nodes[::2], self.nodes[1::2], strict=True))
        return Pairs(self.line, pairs, self.size)


def parse(text: str) -> Node | None:
    """The one document of a text; None: it has none. Raises NotYaml."""
    if len(text) > MAX_BYTES:
        raise NotYaml(0, f"it has more than {MAX_BYTES // 1024**2} MiB")
    tree = _Tree()
    for event in _events(text):
        tree.take(event, event.start_mark.line + 1)
    return tree.root


def _events(text: str) -> Iterator[Any]:
    try:
        yield from yaml.parse(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = " ".join(filter(None, (error.context, error.problem)))
        raise NotYaml(mark.line + 1 if mark is not None else 0, f"this is no YAML: {why}") from None
    except yaml.YAMLError as error:
        raise NotYaml(0, f"this is no YAML: {str(error).splitlines()[0]}") from None


class _Tree:
    """Takes the events of a document in their order."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}

    def take(self, event: Any, line: int) -> None:
        match event:
            case yaml.ScalarEvent():
                _refuse_tag(event, line)
                # libyaml says "" of what has no quotes, the other parser None.
                self._add(Text(line, event.value, not event.style), line, event.anchor)
            case yaml.AliasEvent():
                self._add(self._repeated(event.anchor, line), line, None)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                _refuse_tag(event, line)
                is_mapping = isinstance(event, yaml.MappingStartEvent)
                self._open.append(_Open(line, is_mapping, event.anchor))
                if len(self._open) > MAX_DEPTH:
                    raise NotYaml(line, f"more than {MAX_DEPTH} levels within each other")
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                ended = self._open.pop()
                self._add(ended.closed(), line, ended.anchor)
            case yaml.DocumentStartEvent() if self.root is not None:
                raise NotYaml(line, "a second document begins: give one file for each")

    def _add(self, node: Node, line: int, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        around = self._open[-1]
        around.nodes.append(node)
        around.size += node.size
        if around.size > MAX_NODES:
            raise NotYaml(line, f"more than {MAX_NODES} values, counting what *aliases repeat")

    def _repeated(self, anchor: str | None, line: int) -> Node:
        # An anchor is known when its value has ended, so that none is within itself.
        found = self._anchors.get(anchor or "")
        if found is None:
            raise NotYaml(line, f"*{anchor} repeats no value that ended before it")
        return found


def _refuse_tag(event: Any, line: int) -> None:
    if event.tag not in (None, "!"):
        raise NotYaml(line, f"the tag {event.tag} is not read: leave it out")
