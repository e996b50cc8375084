"""A record of `declared` as the text of a fleet file, without what has its default. Pure."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import yaml

from yolopool.client.fleet_file.declared import Fleet, is_usual, keys

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Words(_Dumper):  # type: ignore[misc] # whichever of both there is
    """Texts of several lines stand as they are."""


def _text(dumper: Any, text: str) -> Any:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Words.add_representer(str, _text)


def text_of(fleet: Fleet, said: str = "") -> str:
    """The file; `said`: a comment that it begins with."""
    comment = "".join(f"# {line}\n" for line in said.splitlines())
    body: str = yaml.dump(
        plain(fleet), Dumper=_Words, sort_keys=False, allow_unicode=True, width=100
    )
    return comment + body


def plain(record: Any) -> Any:
    """A record as lists, mappings and words; a key that has its default is left out."""
    if is_dataclass(record):
        values = {name: getattr(record, name) for name in keys(type(record))}
        return {name: plain(one) for name, one in values.items() if not is_usual(record, name)}
    if isinstance(record, Mapping):
        return {name: plain(one) for name, one in record.items()}
    if isinstance(record, tuple):
        return [plain(one) for one in record]
    return record
