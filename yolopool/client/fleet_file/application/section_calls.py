"""The calls about records that stand alone: what the pool has of a section, and setting one."""

from pathlib import Path
from typing import Any

from yolopool.client.calls import Call
from yolopool.client.fleet_file.application.step_calls import schedule_call, schedules_call
from yolopool.client.fleet_file.declared import (
    Family,
    FamilyMember,
    Gate,
    Place,
    Schedule,
    StoreRule,
    Watch,
)
from yolopool.client.fleet_file.sections.section_plan import (
    FAMILIES,
    GATES,
    SCHEDULES,
    STORE,
    WATCHES,
    DeleteRecord,
    Section,
    settled,
)
from yolopool.client.fleet_file.text.wrong import STORED, stored_digest
from yolopool.client.rollout import alias_records, family_records, schedule_calls
from yolopool.client.rules import rule_calls
from yolopool.client.rules.rule_records import ModelRule
from yolopool.client.sources import watch_records
from yolopool.client.uploads import Flow


def there(section: Section, prefix: str) -> Flow[tuple[Any, ...]]:
    """What the pool has of a section, as a file has it; of families those within the prefix."""
    if section is SCHEDULES:
        found: tuple[Schedule, ...] = yield schedules_call()
        return found
    if section is WATCHES:
        return tuple(_watch(one) for one in (yield watch_records.watches()))
    if section is FAMILIES:
        named = [one.name for one in (yield alias_records.aliases(prefix)) if one.family]
        families = []
        for name in named:
            families.append(_family((yield family_records.family(name))))
        return tuple(families)
    rules = yield rule_calls.rules()
    records = map(_gate if section is GATES else _store_rule, rules)
    return tuple(one for one in records if one is not None)


def set_record(record: Any, why: str, data: Path | None) -> Flow[None]:
    """Makes or replaces one. `data`: where a gate's labelled images are; None: in the store."""
    match record:
        case Schedule():
            yield schedule_call(record)
        case Watch():
            yield _set_watch(record)
        case StoreRule(pattern=pattern, keep_versions=kept, store_bytes=held):
            yield rule_calls.set_store_rule(pattern, keep_versions=kept, store_bytes=held)
        case Family():
            yield _set_family(record, why)
        case Gate(model=model, min_map50_95=map50_95, min_map50=map50):
            if data is not None:
                yield from rule_calls.upload_labelled(data)
            yield rule_calls.order_gate(
                model, stored_digest(record.data), min_map50_95=map50_95, min_map50=map50
            )


def delete_call(step: DeleteRecord) -> Call[Any]:
    name = step.name
    if step.section is SCHEDULES:
        return schedule_calls.delete_schedule(name)
    if step.section is WATCHES:
        return watch_records.delete_watch(name)
    if step.section is FAMILIES:
        return alias_records.delete_alias(name)
    if step.section is GATES:
        return rule_calls.clear_gate(name)
    assert step.section is STORE
    return rule_calls.set_store_rule(name, keep_versions=0, store_bytes=0)


def _set_watch(watch: Watch) -> Call[watch_records.Watch]:
    return watch_records.set_watch(
        watch.name,
        watch.uri,
        watch.model,
        patterns=watch.patterns,
        profile=watch.profile,
        every_s=watch.every_s,
        settle_s=watch.settle_s,
    )


def _set_family(family: Family, why: str) -> Call[family_records.Family]:
    place = family.place
    return family_records.set_family(
        family.name,
        {one.begins: one.model for one in family.members}
        if family.by_time
        else [one.model for one in family.members],
        within_s=family.within_s,
        time_zone=family.time_zone,
        place=(place.latitude, place.longitude) if place is not None else None,
        why=why,
    )


# --- what the pool has, as a file has it ----------------------------------------------------------


def _watch(message: watch_records.Watch) -> Any:
    watch = Watch(
        name=message.name,
        uri=message.uri,
        model=message.model,
        patterns=message.patterns,
        profile=message.profile,
        every_s=message.every_s,
        settle_s=message.settle_s,
    )
    return settled(watch)


def _family(message: family_records.Family) -> Family:
    return Family(
        name=message.name,
        members=tuple(FamilyMember(model=one.model, begins=one.begins) for one in message.members),
        within_s=message.within_s,
        time_zone=message.time_zone,
        place=Place(latitude=message.place[0], longitude=message.place[1])
        if message.place is not None
        else None,
    )


def _gate(rule: ModelRule) -> Gate | None:
    gate = rule.gate
    if gate is None:
        return None
    return Gate(
        model=rule.pattern,
        data=f"{STORED}{gate.data}",
        min_map50_95=gate.min_map50_95,
        min_map50=gate.min_map50,
    )


def _store_rule(rule: ModelRule) -> StoreRule | None:
    if not (rule.keep_versions or rule.store_bytes):
        return None
    return StoreRule(
        pattern=rule.pattern, keep_versions=rule.keep_versions, store_bytes=rule.store_bytes
    )
