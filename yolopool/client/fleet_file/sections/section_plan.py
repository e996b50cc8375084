"""The sections whose records stand alone, each told by its name, and what becomes of them. Pure."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from yolopool.client.fleet_file.declared import Family, Fleet, Schedule, Watch
from yolopool.client.fleet_file.fleet_steps import differences, given
from yolopool.client.fleet_file.present import Present, rounded

# Of a watch that has none of its own.
_USUAL_PATTERNS = ("*.pt", "*.onnx")


@dataclass(frozen=True, slots=True)
class Section:
    """`name`: its key in a file; `noun`: one of it; `told_by`: the key that names one of it;
    `about`: the names that the file's prefix is about; `models`: the references in a record.
    """

    name: str
    noun: str
    told_by: str
    about: Callable[[Any], Iterable[str]]
    models: Callable[[Any], Iterable[str]] = lambda _: ()

    def of(self, fleet: Fleet | Present) -> tuple[Any, ...] | None:
        """Its records; None: it is left out, or was not asked for."""
        found: tuple[Any, ...] | None = getattr(fleet, self.name)
        return found

    def told(self, record: Any) -> str:
        """What tells a record from the others of the section."""
        return str(getattr(record, self.told_by))

    def is_within(self, record: Any, prefix: str) -> bool:
        return all(name.startswith(prefix) for name in self.about(record))


def references(schedule: Schedule) -> Iterable[str]:
    """The models that a schedule names."""
    return (*(one.model for one in schedule.load), *schedule.release)


def _members(family: Family) -> Iterable[str]:
    return (one.model for one in family.members)


GATES = Section("gates", "gate", "model", lambda gate: (gate.model,))
FAMILIES = Section("families", "family", "name", lambda family: (family.name,), _members)
SCHEDULES = Section("schedules", "schedule", "name", references, references)
WATCHES = Section("watches", "watch", "name", lambda watch: (watch.model,))
STORE = Section("store", "store rule", "pattern", lambda rule: (rule.pattern,))
# In the order in which they are applied.
SECTIONS = (GATES, FAMILIES, SCHEDULES, WATCHES, STORE)


def settled(record: Any) -> Any:
    """A record as the pool keeps it, but for what a file leaves out."""
    plain = replace(rounded(record), at=record.at)
    if not isinstance(plain, Watch):
        return plain
    patterns = () if plain.patterns == _USUAL_PATTERNS else plain.patterns
    return replace(plain, uri=plain.uri.rstrip("/") + "/", patterns=patterns)


@dataclass(frozen=True, slots=True)
class SetRecord:
    """`before` None: it is new."""

    section: Section
    before: Any
    after: Any

    @property
    def name(self) -> str:
        return self.section.told(self.after)

    @property
    def words(self) -> str:
        if self.before is None:
            return ", ".join(given(self.after, self.section.told_by))
        return differences(self.before, self.after)


@dataclass(frozen=True, slots=True)
class DeleteRecord:
    section: Section
    name: str


RecordStep = SetRecord | DeleteRecord


def record_steps(fleet: Fleet, present: Present) -> Iterator[RecordStep]:
    """Of every section that the file has, what is to be set, and what it does not name."""
    for section in SECTIONS:
        declared = section.of(fleet)
        if declared is not None:
            yield from _of_section(section, declared, section.of(present) or (), fleet.prefix)


def _of_section(
    section: Section, declared: Iterable[Any], present: Iterable[Any], prefix: str
) -> Iterator[RecordStep]:
    there = {section.told(one): one for one in present}
    wanted = {section.told(one): settled(one) for one in declared}
    for name, one in wanted.items():
        if there.get(name) != one:
            yield SetRecord(section, there.get(name), one)
    for name in sorted(there.keys() - wanted.keys()):
        if section.is_within(there[name], prefix):
            yield DeleteRecord(section, name)
