"""A plan of a fleet file as lines, like a diff: `+` is made, `~` changes, `-` is deleted."""

from collections.abc import Iterator

from yolopool.client.fleet_file.alias_plan import AliasStep, DeleteAlias, SetAlias
from yolopool.client.fleet_file.application.outcome import FleetPlan
from yolopool.client.fleet_file.fleet_steps import given
from yolopool.client.fleet_file.planning import Plan, VersionPlan
from yolopool.client.fleet_file.sections.section_plan import (
    SECTIONS,
    DeleteRecord,
    RecordStep,
    SetRecord,
)

STYLES = {"+": "green", "~": "yellow", "-": "red", "!": "red"}
MAX_LEFT = 10


def lines(planned: FleetPlan) -> Iterator[str]:
    """The lines of a plan; those of one thing stand together, the first of them at the margin."""
    plan = planned.plan
    for one in plan.versions:
        yield from _version(one)
    for alias in plan.aliases:
        yield _alias(alias)
    for step in plan.records:
        yield _record(step)
    for ref in plan.deleted:
        yield f"- {ref}"
    if plan.left:
        more = f" and {len(plan.left) - MAX_LEFT} more" if len(plan.left) > MAX_LEFT else ""
        yield f"  not in the file, --prune deletes it: {', '.join(plan.left[:MAX_LEFT])}{more}"


def _version(one: VersionPlan) -> Iterator[str]:
    if one.present is None:
        known = f" (sha256 {one.entry.digest[:12]})" if one.entry.digest else ""
        yield f"+ {one.ref}  {one.entry.version.artifact}{known}"
        if settings := given(one.entry.version.settings):
            yield f"    settings: {', '.join(settings)}"
    elif one.failed:
        yield f"! {one.ref} FAILED: {one.failed}"
    elif one.steps:
        yield f"~ {one.ref}"
    for step in one.steps:
        yield f"    {step.words}"


def _record(step: RecordStep) -> str:
    noun = step.section.noun
    if isinstance(step, DeleteRecord):
        return f"- {noun} {step.name}"
    return f"{'~' if step.before else '+'} {noun} {step.name}  {step.words}"


def _alias(step: AliasStep) -> str:
    if isinstance(step, DeleteAlias):
        return f"- alias {step.name}"
    return f"{'~' if step.before else '+'} alias {step.after.name}  {step.words}"


def summary(plan: Plan) -> str:
    """How many things are made, changed and deleted."""
    others = [*plan.aliases, *plan.records]
    puts = [one for one in others if isinstance(one, SetAlias | SetRecord)]
    new = sum(one.present is None for one in plan.versions)
    new += sum(one.before is None for one in puts)
    changed = sum(one.present is not None and bool(one.steps) for one in plan.versions)
    changed += sum(one.before is not None for one in puts)
    dropped = len(others) - len(puts) + len(plan.deleted)
    return f"{new} to add, {changed} to change, {dropped} to delete, {plan.unchanged} unchanged"


def plain(planned: FleetPlan) -> dict[str, object]:
    """The plan as JSON."""
    plan = planned.plan
    return {
        "versions": [
            {
                "model": one.ref,
                "line": one.entry.version.line,
                "action": "register" if one.present is None else "change",
                "artifact": one.entry.digest,
                "steps": [step.words for step in one.steps],
            }
            for one in plan.versions
            if one.present is None or one.steps
        ],
        "aliases": [_alias(step) for step in plan.aliases],
        **{
            section.name: [_record(step) for step in plan.records if step.section is section]
            for section in SECTIONS
        },
        "deleted": list(plan.deleted),
        "left": list(plan.left),
        "failed": {one.ref: one.failed for one in plan.versions if one.failed},
        "unchanged": plan.unchanged,
    }
