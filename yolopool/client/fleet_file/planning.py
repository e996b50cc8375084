"""From what a fleet file declares and what a pool has to what is to be done. Pure.

A version is told by its artifact's digest and what it was registered with. What a version's entry
leaves out has its default, but for `load`; a section that is left out is not looked at.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from yolopool.client.fleet_file.alias_plan import AliasStep, DeleteAlias, SetAlias, alias_steps
from yolopool.client.fleet_file.declared import Build, Fleet, Settings, Version, keys
from yolopool.client.fleet_file.fleet_steps import (
    LoadVersion,
    MakeBuild,
    ServeBuild,
    SetBatching,
    SetLabels,
    SetPlacement,
    SetResidency,
    VersionStep,
)
from yolopool.client.fleet_file.present import Present, PresentVersion, rounded
from yolopool.client.fleet_file.sections.section_plan import (
    DeleteRecord,
    RecordStep,
    SetRecord,
    record_steps,
)
from yolopool.client.fleet_file.text.reading import Faults


@dataclass(frozen=True, slots=True)
class Entry:
    """A version of the file with what its files are: `digest` of the artifact (empty: of a URI, not
    known), the text of its `architecture`, and the digest of each build's calibration images, by
    slot.
    """

    version: Version
    digest: str
    architecture: str = ""
    calibrations: Mapping[str, str] = field(default_factory=dict)

    @property
    def architecture_sha256(self) -> str:
        return sha256(self.architecture.encode()).hexdigest() if self.architecture else ""


@dataclass(frozen=True, slots=True)
class VersionPlan:
    """What becomes of one entry; `present` None: it is registered."""

    entry: Entry
    present: PresentVersion | None
    steps: tuple[VersionStep, ...]

    @property
    def ref(self) -> str:
        declared = self.entry.version
        if self.present is not None:
            return self.present.ref
        return f"{declared.name}@{declared.version}" if declared.version else declared.name

    @property
    def failed(self) -> str:
        """Why its import failed; it is not tried again: the same would come of it."""
        present = self.present
        return present.why if present is not None and present.state == "FAILED" else ""


@dataclass(frozen=True, slots=True)
class Plan:
    """`deleted`: what `prune` takes away, as name@version, and those of it that are `pinned`;
    `left`: what the file does not name and stays, as it is said to people.
    """

    versions: tuple[VersionPlan, ...]
    aliases: tuple[AliasStep, ...] = ()
    records: tuple[RecordStep, ...] = ()
    deleted: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    pinned: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        return not (
            any(map(_is_work, self.versions)) or self.aliases or self.records or self.deleted
        )

    @property
    def unchanged(self) -> int:
        """How many versions are as the file has them."""
        return sum(not _is_work(one) for one in self.versions)


def _is_work(one: VersionPlan) -> bool:
    return one.present is None or bool(one.steps)


def plan(
    fleet: Fleet, entries: Sequence[Entry], present: Present, faults: Faults, *, prune: bool
) -> Plan:
    """The plan of a file; what can't be done is added to `faults`, and the plan is worth nothing.

    With `prune` what the file does not name is deleted, of the sections that it has.
    """
    found = matched(entries, present.versions, faults)
    versions = tuple(
        VersionPlan(entry, one, changes(entry, one) if one is not None else _of_new(entry))
        for entry, one in zip(entries, found, strict=True)
    )
    watched = {one.model for one in fleet.watches or ()}
    kept = [one for one in present.versions if one.name not in watched]
    extra = tuple(_extra(versions, kept)) if fleet.models is not None else ()
    new = frozenset(one.entry.version.name for one in versions if one.present is None)
    aliases = tuple(alias_steps(fleet, present.versions, present, new))
    records = tuple(record_steps(fleet, present))
    if prune:
        pinned = frozenset(one.ref for one in present.versions if one.pinned)
        return Plan(versions, aliases, records, extra, pinned=pinned.intersection(extra))
    unnamed = [f"alias {one.name}" for one in aliases if isinstance(one, DeleteAlias)]
    unnamed += [
        f"{one.section.noun} {one.name}" for one in records if isinstance(one, DeleteRecord)
    ]
    return Plan(
        versions,
        tuple(one for one in aliases if isinstance(one, SetAlias)),
        tuple(one for one in records if isinstance(one, SetRecord)),
        left=(*extra, *unnamed),
    )


# --- which version an entry is --------------------------------------------------------------------


def matched(
    entries: Sequence[Entry], versions: Iterable[PresentVersion], faults: Faults
) -> list[PresentVersion | None]:
    """The version that each entry is, if it is there. One with a number is that version, and has to
    be it; one without is the newest that it can be.
    """
    known: dict[str, list[PresentVersion]] = {}
    for version in sorted(versions, key=lambda one: -one.number):
        known.setdefault(version.name, []).append(version)
    taken = {
        (entry.version.name, entry.version.version) for entry in entries if entry.version.version
    }
    found: list[PresentVersion | None] = []
    for index, entry in enumerate(entries):
        candidates = known.get(entry.version.name, [])
        if entry.version.version:
            found.append(_numbered(entry, candidates, f"models[{index}]", faults))
            continue
        free = (one for one in candidates if (one.name, one.number) not in taken)
        same = next((one for one in free if _is_same(entry, one)), None)
        if same is not None:
            taken.add((same.name, same.number))
        found.append(same)
    _check_twins(entries, faults)
    return found


def _numbered(
    entry: Entry, candidates: Sequence[PresentVersion], where: str, faults: Faults
) -> PresentVersion | None:
    declared, line = entry.version, entry.version.at.get("version", entry.version.line)
    there = next((one for one in candidates if one.number == declared.version), None)
    if there is not None and not _is_same(entry, there):
        why = ", ".join(_unlike(entry, there))
        faults.add(
            line,
            f"{where}.version",
            f"{there.ref} is there and differs ({why}): versions never change, give another number",
        )
    if there is None and candidates and candidates[0].number > declared.version:
        faults.add(
            line,
            f"{where}.version",
            f"{declared.name} has had versions up to {candidates[0].number}: give a higher number",
        )
    return there


def _check_twins(entries: Sequence[Entry], faults: Faults) -> None:
    """Two versions of one model that are the same and have no number are told apart by nothing."""
    lines: dict[object, int] = {}
    for index, entry in enumerate(entries):
        declared = entry.version
        if declared.version:
            continue
        before = lines.setdefault((declared.name, *_identity(entry)), declared.line)
        if before != declared.line:
            why = f"the same version of {declared.name} is in line {before}: give each once"
            faults.add(declared.line, f"models[{index}]", why)


def _identity(entry: Entry) -> tuple[object, ...]:
    declared = entry.version
    return (
        entry.digest or declared.artifact,
        _settled(declared.settings),
        declared.class_names,
        tuple(sorted(declared.renamed_classes.items())),
        entry.architecture_sha256,
    )


def _settled(settings: Settings) -> Settings:
    """As a pool keeps them: the sizes in order and the usual one not among them; of a rectangle,
    its sides alone.
    """
    sizes = tuple(sorted({*settings.image_sizes} - {settings.image_size}))
    side = 0 if settings.image_height else settings.image_size
    settled: Settings = rounded(replace(settings, image_sizes=sizes, image_size=side))
    return settled


def _is_same(entry: Entry, there: PresentVersion) -> bool:
    return not any(_unlike(entry, there))


def _unlike(entry: Entry, there: PresentVersion) -> Iterator[str]:
    """By what a version differs from an entry's."""
    declared = entry.version
    if not (entry.digest and there.artifact):
        # Of a URI whose digest nobody said the text has to do.
        if declared.artifact != there.uri:
            yield f"it is of {there.uri or there.artifact[:12]}, not of {declared.artifact}"
    elif entry.digest != there.artifact:
        yield f"its file is {there.artifact[:12]}, not {entry.digest[:12]}"
    settings, blank = _settled(declared.settings), Settings()
    kept = _settled(there.settings or there.resolved)
    for name in keys(Settings):
        asked = getattr(settings, name)
        # Of a release that kept no more, what was asked for is there if it holds.
        if there.settings is None and asked == getattr(blank, name):
            continue
        held = getattr(kept, name)
        if asked != held:
            yield f"{name} is {held}, not {asked}"
    if declared.class_names != there.class_names and there.settings is not None:
        yield "its class_names"
    if dict(declared.renamed_classes) != dict(there.renamed_classes):
        yield "its renamed_classes"
    if entry.architecture_sha256 != there.architecture_sha256:
        yield "its architecture"


# --- what is to change ----------------------------------------------------------------------------


def _of_new(entry: Entry) -> tuple[VersionStep, ...]:
    """What is to be set of a version that is registered first, as far as that can be known."""
    declared = entry.version
    blank = PresentVersion(
        declared.name, declared.version, "UPLOADED", entry.digest, declared.settings
    )
    return changes(entry, blank)


def changes(entry: Entry, there: PresentVersion) -> tuple[VersionStep, ...]:
    """What is to be done so that a version is as its entry has it."""
    return tuple(_changes(entry, there))


def _changes(entry: Entry, there: PresentVersion) -> Iterator[VersionStep]:
    declared = entry.version
    put = {
        name: value for name, value in declared.labels.items() if there.labels.get(name) != value
    }
    drop = tuple(sorted(there.labels.keys() - declared.labels.keys()))
    if put or drop:
        yield SetLabels(put, drop)
    if there.placement != declared.placement:
        yield SetPlacement(there.placement, declared.placement)
    for device in sorted({*there.batching, *declared.batching}):
        before, after = there.batching.get(device), declared.batching.get(device)
        after = rounded(after) if after is not None else None
        if before != after:
            yield SetBatching(device, before, after)
    residency = rounded(declared.residency)
    if there.residency != residency:
        yield SetResidency(there.residency, residency)
    if there.state == "FAILED":
        return
    for build in declared.builds:
        yield from _build(build, entry.calibrations.get(build.slot, ""), there)
    yield from _served(declared, there)
    load = declared.load
    if load is not None:
        # A hot standby is pinned whatever its want says.
        pinned = load.pin or declared.residency.mode == "hot-standby"
        if (there.wanted_replicas, there.pinned) != (load.replicas, pinned):
            yield LoadVersion(load.replicas, load.pin)


def _build(build: Build, calibration: str, there: PresentVersion) -> Iterator[VersionStep]:
    made = there.builds.get(build.slot)
    if made is None:
        yield MakeBuild(build, calibration, "new")
    elif made.calibration != calibration:
        yield MakeBuild(build, calibration, "of other calibration images")


def _served(declared: Version, there: PresentVersion) -> Iterator[VersionStep]:
    wanted = {build.device: build for build in declared.builds if build.serve}
    for device in sorted({*wanted, *there.served}):
        build, now = wanted.get(device), there.served.get(device)
        before = now.variant if now is not None else ""
        if build is None:
            yield ServeBuild(device, before, "")
            continue
        same = now is not None and (now.variant, now.unchecked) == (build.variant, build.unchecked)
        on_record = {one.compute_class for one in now.checks} if now is not None and same else set()
        checks = [rounded(one) for one in build.checks if one.compute_class not in on_record]
        if not same or checks:
            yield ServeBuild(device, before, build.variant, build.unchecked, tuple(checks))


# --- what the file does not name ------------------------------------------------------------------


def _extra(versions: Sequence[VersionPlan], present: Iterable[PresentVersion]) -> Iterator[str]:
    """Versions, and builds of versions, that the file does not name, as name@version."""
    named = {one.present.ref: one.entry.version for one in versions if one.present is not None}
    for there in sorted(present, key=lambda one: (one.name, one.number)):
        declared = named.get(there.ref)
        if declared is None:
            yield there.ref
            continue
        slots = {build.slot for build in declared.builds}
        yield from (made.name for slot, made in sorted(there.builds.items()) if slot not in slots)
