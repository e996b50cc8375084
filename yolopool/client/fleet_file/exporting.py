"""The client method that writes what a pool has as a fleet file."""

from dataclasses import dataclass, replace
from typing import Any

from yolopool.client import calls
from yolopool.client.calls import Call
from yolopool.client.fleet_file import present
from yolopool.client.fleet_file.alias_plan import meant
from yolopool.client.fleet_file.application import section_calls
from yolopool.client.fleet_file.application.step_calls import running_call, versions_call
from yolopool.client.fleet_file.declared import FORMAT, Alias, Build, Fleet, Load, Version
from yolopool.client.fleet_file.present import PresentVersion
from yolopool.client.fleet_file.sections.section_plan import SECTIONS, Section
from yolopool.client.fleet_file.text.emitting import text_of
from yolopool.client.fleet_file.text.wrong import STORED
from yolopool.client.rollout import alias_records
from yolopool.client.uploads import Flow
from yolopool.errors import GrantNeeded
from yolopool.v1 import model_pb2

_SAID = """Written by yolopool export. Artifacts are those of the pool's store: to apply this
elsewhere, give the files' paths, or copy the store."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The text of the file, and what of the pool it does not have, for people."""

    text: str
    left_out: tuple[str, ...] = ()


def export_fleet(prefix: str = "") -> Flow[Exported]:
    """What the pool has of models whose names begin with `prefix`, and what is set for them, as
    the text of a fleet file. Applying it to this pool changes nothing; applied to an empty pool
    with this pool's store it makes the same fleet.
    """
    known = yield versions_call(prefix)
    names = dict.fromkeys(version.name for version in known)
    models: list[model_pb2.Model] = []
    for name in names:  # texts are in answers about one model alone
        models.append((yield _model_call(name)))
    left_out: list[str] = []
    versions = [
        version
        for model in models
        for version in sorted(model.versions, key=lambda one: one.version.version)
        if _is_kept(version, left_out)
    ]
    aliases = yield alias_records.aliases(prefix)
    rolling = yield running_call(prefix)
    left_out += [
        f"rollout of {name}: it is no part of a file, its alias is written as @{stable}"
        for name, stable in sorted(rolling.items())
    ]
    records: dict[str, Any] = {}
    for section in SECTIONS:
        records[section.name] = yield from _records(section, prefix, left_out)
    fleet = Fleet(
        fleet=FORMAT,
        prefix=prefix,
        models=tuple(map(declared_of, versions)),
        aliases=tuple(_alias(one, rolling.get(one.name)) for one in aliases if not one.family),
        **records,
    )
    return Exported(text_of(fleet, _SAID), tuple(left_out))


def _model_call(name: str) -> Call[model_pb2.Model]:
    request = model_pb2.GetModelRequest(model=name)
    return Call("model", "GetModel", request, calls.READ_TIMEOUT_S, lambda reply: reply.model)


def _is_kept(version: model_pb2.ModelVersion, left_out: list[str]) -> bool:
    failed = version.state == model_pb2.VERSION_STATE_FAILED
    if failed:
        left_out.append(f"{version.version.model}@{version.version.version}: its import failed")
    return not failed


def _records(section: Section, prefix: str, left_out: list[str]) -> Flow[tuple[Any, ...] | None]:
    try:
        there = yield from section_calls.there(section, prefix)
    except GrantNeeded:
        left_out.append(f"{section.name}: not every model is granted to you")
        return None
    return tuple(one for one in there if section.is_within(one, prefix))


def declared_of(message: model_pb2.ModelVersion) -> Version:
    """The entry of a version, as an answer about its model alone has it."""
    there, given = present.version_of(message), message.registered
    return Version(
        name=there.name,
        artifact=there.uri or f"{STORED}{there.artifact}",
        profile=message.profile,
        sha256=there.artifact if there.uri else "",
        version=there.number,
        source_name=message.source_name,
        settings=there.settings or there.resolved,
        class_names=there.class_names,
        renamed_classes=there.renamed_classes,
        architecture_yaml=given.architecture_yaml,
        signature_text=given.signature,
        metadata=dict(sorted(message.metadata.items())),
        labels=dict(sorted(there.labels.items())),
        residency=there.residency,
        placement=there.placement,
        batching=there.batching,
        load=_load(there),
        builds=tuple(_build(slot, there) for slot in sorted(there.builds)),
    )


def _alias(there: alias_records.Alias, stable: int | None) -> Alias:
    return Alias(
        name=there.name,
        targets={str(number): weight for number, weight in meant(there, stable).items()},
        keep_s=there.keep_s,
    )


def _load(there: PresentVersion) -> Load | None:
    """One replica that nobody pinned comes and goes with its requests."""
    pinned = there.pinned and there.residency.mode != "hot-standby"
    if not pinned and there.wanted_replicas < 2:
        return None
    return Load(replicas=there.wanted_replicas, pin=pinned)


def _build(slot: str, there: PresentVersion) -> Build:
    backend, precision, device = slot.split("-")
    made, served = there.builds[slot], there.served.get(device)
    build = Build(
        backend=backend,
        precision=precision,
        device=device,
        calibration=f"{STORED}{made.calibration}" if made.calibration else "",
    )
    if served is None or served.variant != build.variant:
        return build
    return replace(build, serve=True, unchecked=served.unchecked, checks=served.checks)
