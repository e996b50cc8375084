"""A fleet file's text to its records, with every rule that needs no pool. Pure."""

import re

from yolopool.client.fleet_file.declared import (
    NEWEST,
    Alias,
    Build,
    Fleet,
    Settings,
    Version,
)
from yolopool.client.fleet_file.sections.section_checks import check_sections
from yolopool.client.fleet_file.text import yaml_lines
from yolopool.client.fleet_file.text.reading import Faults, read_record
from yolopool.client.fleet_file.text.wrong import DIGEST, STORED, Wrong, refused
from yolopool.client.fleet_file.text.yaml_lines import NotYaml
from yolopool.errors import FleetFileInvalid
from yolopool.labels import check_labels
from yolopool.names import check_name, parse_ref
from yolopool.vocabulary import INT8, PRECISIONS

_NUMBER = re.compile(r"[1-9]\d{0,8}")


def parse_fleet(data: bytes, file: str) -> Fleet:
    """The fleet that a file declares; `file`: its name, for messages. Raises FleetFileInvalid."""
    faults = Faults()
    fleet = _read(data, faults)
    if isinstance(fleet, Fleet):
        _check(fleet, faults)
    if faults.count:
        raise invalid(faults, file)
    assert isinstance(fleet, Fleet), "what has no faults was read"
    return fleet


def invalid(faults: Faults, file: str) -> FleetFileInvalid:
    """The error that names the faults of a file, in the order of their lines."""
    lines = [fault.said(file) for fault in sorted(faults.found, key=lambda one: one.line)]
    if faults.count > len(lines):
        lines.append(f"and {faults.count - len(lines)} more")
    return FleetFileInvalid("\n  ".join(lines))


def _read(data: bytes, faults: Faults) -> object:
    try:
        root = yaml_lines.parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return faults.add(line, "", "this is no UTF-8")
    except NotYaml as error:
        return faults.add(error.line, "", error.why)
    if root is None:
        return faults.add(0, "", "the file is empty: it begins with 'fleet: 1'")
    return read_record(Fleet, root, "", faults)


# --- rules between keys ---------------------------------------------------------------------------


def _check(fleet: Fleet, faults: Faults) -> None:
    numbered: dict[tuple[str, int], int] = {}
    for index, version in enumerate(fleet.models or ()):
        where = f"models[{index}]"
        for name, why in _wrong_version(version, fleet.prefix):
            faults.add(version.at.get(name, version.line), f"{where}.{name}", why)
        for number, build in enumerate(version.builds):
            for name, why in _wrong_build(build):
                faults.add(
                    build.at.get(name, build.at[""]), f"{where}.builds[{number}].{name}", why
                )
        before = numbered.setdefault((version.name, version.version), version.line)
        if version.version and before != version.line:
            why = f"{version.name}@{version.version} is there already, in line {before}"
            faults.add(version.line, where, why)
    _check_aliases(fleet, faults)
    check_sections(fleet, faults)


def _check_aliases(fleet: Fleet, faults: Faults) -> None:
    lines: dict[str, int] = {}
    for index, alias in enumerate(fleet.aliases or ()):
        for name, why in _wrong_alias(alias, fleet.prefix):
            faults.add(alias.at.get(name, alias.line), f"aliases[{index}].{name}", why)
        before = lines.setdefault(alias.name, alias.line)
        if before != alias.line:
            why = f"{alias.name} is there already, in line {before}"
            faults.add(alias.line, f"aliases[{index}]", why)


def _wrong_alias(alias: Alias, prefix: str) -> Wrong:
    yield from refused("name", parse_ref, alias.name)
    if ":" not in alias.name:
        yield "name", f"{alias.name!r} is no alias: give model:name"
    if not alias.name.startswith(prefix):
        yield "name", f"{alias.name} does not begin with the file's prefix {prefix}"
    for word in alias.targets:
        if word != NEWEST and not _NUMBER.fullmatch(word):
            yield "targets", f"{word[:80]!r}: give the number of a version, or {NEWEST}"
    if sum(alias.targets.values()) != 1000:
        yield "targets", f"the shares are {sum(alias.targets.values())} together, not 1000"


def _wrong_version(version: Version, prefix: str) -> Wrong:
    yield from refused("name", check_name, version.name)
    yield from refused("labels", check_labels, version.labels)
    if not version.name.startswith(prefix):
        yield "name", f"{version.name} does not begin with the file's prefix {prefix}"
    yield from _wrong_sources(version)
    yield from _wrong_sides(version.settings)
    slots = [build.slot for build in version.builds]
    if len(set(slots)) < len(slots):
        yield "builds", "two are the same: give each once"
    serving = [build.device for build in version.builds if build.serve]
    if len(set(serving)) < len(serving):
        yield "builds", "two serve on one kind of device: let one serve"


def _wrong_sources(version: Version) -> Wrong:
    stored = version.artifact.removeprefix(STORED)
    if not stored or (stored != version.artifact and not DIGEST.fullmatch(stored)):
        yield "artifact", "give a path, or sha256: and 64 lower-case hexadecimal digits"
    if version.sha256 and not DIGEST.fullmatch(version.sha256):
        yield "sha256", "give 64 lower-case hexadecimal digits"
    if version.profile and not version.artifact.startswith("s3://"):
        yield "profile", "only s3:// has credentials of the control planes: leave this out"
    if version.sha256 and stored != version.artifact:
        yield "sha256", "artifact says it already: leave this out"
    for path, text in (("architecture", "architecture_yaml"), ("signature", "signature_text")):
        if getattr(version, path) and getattr(version, text):
            yield text, f"{path} is given too: give one of them"
    if (version.architecture or version.architecture_yaml) and not version.class_names:
        yield "class_names", "an architecture needs the names of all classes"
    if version.class_names and version.renamed_classes:
        yield "renamed_classes", "class_names is given too: give all names, or some by their id"


def _wrong_sides(settings: Settings) -> Wrong:
    sides = settings.image_height, settings.image_width
    if any(sides) and not all(sides):
        yield "settings", "image_height and image_width: give both, or none"
    if all(sides) and (settings.image_sizes or settings.image_size not in (0, max(sides))):
        yield "settings", "a rectangle is the only size: leave image_size and image_sizes out"


def _wrong_build(build: Build) -> Wrong:
    made = PRECISIONS[build.device].get(build.backend, ())
    if build.precision not in made:
        names = [
            f"{backend}/{precision}"
            for backend, precisions in PRECISIONS[build.device].items()
            for precision in precisions
        ]
        yield "backend", f"{build.variant} is not made for {build.device}: {', '.join(names)} are"
    if (build.precision == INT8) != bool(build.calibration):
        yield "calibration", f"it is of {INT8}, which needs it, and of nothing else"
    digest = build.calibration.removeprefix(STORED)
    if digest != build.calibration and not DIGEST.fullmatch(digest):
        yield "calibration", "give a folder, or sha256: and 64 lower-case hexadecimal digits"
    if (build.unchecked or build.checks) and not build.serve:
        yield "serve", "unchecked and checks are of a build that serves: add serve: true"
