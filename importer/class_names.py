"""Decides the class names of a model from what its file and its user say. Pure.

What the file says is read as the model library reads it: texts by index, by `str` of whatever was
kept there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from importer.refusal import INVALID, ImportRefused

_MAX_CLASSES, _MAX_LENGTH = 100_000, 1_000
# ImageNet's codes of its classes begin like this: n01440764.
_CODE = "n0"


def of_file(said: Any) -> tuple[str, ...]:
    """The names that a file keeps: a list, or a mapping of indices 0, 1, 2, ... Empty if it keeps
    none. Raises ImportRefused for indices with gaps.
    """
    if isinstance(said, Mapping):
        return _in_order(said)
    return tuple(map(str, said)) if isinstance(said, list | tuple) else ()


def _in_order(said: Mapping[Any, Any]) -> tuple[str, ...]:
    try:
        by_index = {int(key): str(name) for key, name in said.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise _refused("the keys of the file's class names are no numbers") from error
    wrong = sorted(set(by_index) ^ set(range(len(by_index))))
    if wrong or len(by_index) != len(said):
        missing = sorted(set(range(len(said))) - set(by_index))
        where = ", ".join(map(str, missing[:10])) or "several for one index"
        raise _refused(f"the file's {len(said)} class names have gaps (missing: {where})")
    return tuple(by_index[index] for index in range(len(by_index)))


def are_codes(names: Sequence[str]) -> bool:
    """Whether the library would show ImageNet's words instead of these codes."""
    return bool(names) and names[0].startswith(_CODE)


@dataclass(frozen=True, slots=True)
class Said:
    """What the user says: the names of all classes in order, or other names for some of the file's
    own, by class id; or neither.
    """

    names: tuple[str, ...] = ()
    renamed: Mapping[int, str] = field(default_factory=dict)

    def put(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The file's names with some of them changed. Raises ImportRefused for unknown classes."""
        unknown = sorted(number for number in self.renamed if not 0 <= number < len(names))
        if unknown:
            raise ImportRefused(
                INVALID,
                f"the model has {len(names)} classes, 0 to {len(names) - 1}, and no class "
                f"{', '.join(map(str, unknown[:10]))}: rename one of these",
            )
        return tuple(self.renamed.get(number, name) for number, name in enumerate(names))


NOTHING = Said()


def decide(said: Said, found: Sequence[str], classes: int) -> tuple[tuple[str, ...], str]:
    """The names of a head of `classes` classes, and a warning or nothing. `found` is what the file
    keeps. Raises ImportRefused if there are too few, or the user says another number, or renames a
    class that is not there.
    """
    names, warning = tuple(said.names or found), ""
    if said.names and len(said.names) != classes:
        raise ImportRefused(
            INVALID,
            f"{len(said.names)} class names were given, the model has {classes} classes: give "
            f"{classes} names, in order",
        )
    if len(names) < classes:
        raise _refused(
            f"the file has {len(names)} class names for the {classes} classes of the model"
        )
    if len(names) > classes:
        warning = (
            f"the file has {len(names)} class names for {classes} classes: the first {classes} "
            "are used"
        )
        names = names[:classes]
    names = said.put(names)
    check(names)
    return names, warning


def of_order(order: Mapping[str, Any]) -> Said:
    """What the user says, of the order of an import, whose keys are texts."""
    renamed = {int(number): str(name) for number, name in order["renamed"].items()}
    return Said(tuple(order["class_names"]), renamed)


def check(names: Sequence[str]) -> None:
    """Raises ImportRefused for names that can't be kept."""
    if len(names) > _MAX_CLASSES:
        raise ImportRefused(
            INVALID, f"{len(names)} class names are more than {_MAX_CLASSES}: use fewer classes"
        )
    for index, name in enumerate(names):
        if len(name) > _MAX_LENGTH:
            raise _refused(f"the name of class {index} is longer than {_MAX_LENGTH} characters")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise _refused(f"the name of class {index} is no text that can be stored") from error


def _refused(wrong: str) -> ImportRefused:
    return ImportRefused(INVALID, f"{wrong}: give the names with --names a,b,..., in order")
