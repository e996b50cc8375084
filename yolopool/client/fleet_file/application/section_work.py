"""Sets the aliases and the other records of a plan, and deletes what it prunes."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from yolopool.client import calls
from yolopool.client.calls import Call
from yolopool.client.fleet_file.alias_plan import DeleteAlias, SetAlias, resolved
from yolopool.client.fleet_file.application import section_calls
from yolopool.client.fleet_file.application.outcome import Applied, Failure, FleetPlan, Told
from yolopool.client.fleet_file.application.step_calls import versions_call
from yolopool.client.fleet_file.present import PresentVersion
from yolopool.client.fleet_file.sections.section_plan import (
    FAMILIES,
    GATES,
    STORE,
    DeleteRecord,
    Section,
    SetRecord,
)
from yolopool.client.fleet_file.text.wrong import stored_digest
from yolopool.client.rollout import alias_records
from yolopool.client.rules import rule_calls
from yolopool.client.uploads import Flow, Sleep
from yolopool.errors import (
    FailedPrecondition,
    ModelNotReady,
    ValidationPending,
    YolopoolError,
)
from yolopool.names import base_name

# How often an alias is tried whose version the pool evaluates at a gate.
GATE_POLL_S = 1.0


class SectionWork:
    """What is done once the versions are on their way, in the order of the methods."""

    def __init__(self, planned: FleetPlan, applied: Applied, told: Told) -> None:
        self._planned, self._applied, self._told = planned, applied, told
        self._later: set[str] = set()  # aliases and families that wait
        self._gateless: set[str] = set()  # models whose gate could not be set

    def aliases(self, wait: bool, until: float) -> Flow[None]:
        """With `wait`, until each has moved; until: monotonic."""
        steps = self._planned.plan.aliases
        versions = (yield versions_call(self._planned.prefix)) if steps else ()
        for step in steps:
            if isinstance(step, DeleteAlias):
                call = alias_records.delete_alias(step.name, expected_revision=step.revision)
                yield from self._drop(call, f"delete alias {step.name}")
            else:
                yield from self._set(step, versions, wait, until)

    def _set(
        self, step: SetAlias, versions: Sequence[PresentVersion], wait: bool, until: float
    ) -> Flow[None]:
        alias, targets = step.after, resolved(step.after, versions) or {}
        if pending := _imports(alias.model, targets, versions):
            self._later.add(alias.name)
            self._applied.later.append(f"alias {alias.name} waits for the import of {pending[0]}")
            return
        if alias.model in self._gateless:
            self._later.add(alias.name)
            self._applied.later.append(f"alias {alias.name} waits for the gate of {alias.model}")
            return
        order = alias_records.set_alias(
            alias.name,
            targets,
            keep_s=alias.keep_s,
            expected_revision=step.before.revision if step.before is not None else 0,
            ungated=step.before is None,  # it takes over from nothing
            why=f"apply {self._planned.file}"[:500],
            wait=wait,
            timeout_s=max(1.0, until - time.monotonic()),
        )
        what = f"alias {alias.name}: {step.words}"
        self._told(what)
        while True:
            try:
                yield order
                self._applied.done.append(what)
            except ValidationPending as error:
                if wait and time.monotonic() < until:
                    yield Sleep(GATE_POLL_S)
                    continue
                self._later.add(alias.name)
                self._applied.later.append(f"alias {alias.name}: {error.message}")
            except YolopoolError as error:
                self._applied.failures.append(Failure(alias.line, what, error))
            return

    def room(self) -> Flow[None]:
        """Gives new versions the room in the store that the file has for them; what takes room
        away waits until they are there.
        """
        for step in self._planned.plan.records:
            if isinstance(step, SetRecord) and step.section is STORE and step.before is not None:
                now, then = step.before.store_bytes, step.after.store_bytes
                if now and (not then or then > now):
                    call = rule_calls.set_store_rule(step.name, store_bytes=then)
                    yield from self._try(call, step.after.line, f"store rule {step.name}: room")

    def set_all(self, sections: Collection[Section]) -> Flow[None]:
        """Sets the records of these sections. A family by time may hold one by size."""
        steps = [one for one in self._planned.plan.records if one.section in sections]
        puts = [one for one in steps if isinstance(one, SetRecord)]
        for section in sections:
            of_section = [one for one in puts if one.section is section]
            for step in sorted(
                of_section, key=lambda one: section is FAMILIES and one.after.by_time
            ):
                yield from self._set_record(step)

    def _set_record(self, step: SetRecord) -> Flow[None]:
        what = f"{step.section.noun} {step.name}"
        if waits := self._later.intersection(step.section.models(step.after)):
            if step.section is FAMILIES:
                self._later.add(step.name)
            self._applied.later.append(f"{what} waits for alias {min(waits)}")
            return
        self._told(what)
        data = None
        if step.section is GATES:
            data = self._planned.resolver.labelled.get(stored_digest(step.after.data))
        try:
            yield from section_calls.set_record(
                step.after, f"apply {self._planned.file}"[:500], data
            )
        except ModelNotReady as error:  # a member of a family that is still imported
            self._later.add(step.name)
            self._applied.later.append(f"{what}: {error.message}")
        except (YolopoolError, OSError) as error:
            self._applied.failures.append(Failure(step.after.line, what, error))
            if step.section is GATES:
                self._gateless.add(step.name)
        else:
            self._applied.done.append(what)

    def drop(self) -> Flow[None]:
        """Takes away the records that are pruned, before aliases move: a gate that is gone holds
        none back, and the name of a family is free for one.
        """
        for step in self._planned.plan.records:
            if isinstance(step, DeleteRecord):
                call = section_calls.delete_call(step)
                yield from self._drop(call, f"delete {step.section.noun} {step.name}")

    def delete(self, waiting: Collection[str]) -> Flow[None]:
        """What is pruned, once everything else is as the file has it: what takes its place may not
        be there yet. `waiting`: models of which a version is still imported.
        """
        for ref in self._planned.plan.deleted:
            name = base_name(ref.partition("@")[0])
            if self._applied.failures:
                self._applied.later.append(f"delete {ref}: not while others failed")
            elif name in waiting:
                said = f"delete {ref}: another version of {name} is imported first"
                self._applied.later.append(said)
            else:
                yield from self._delete(ref)

    def _delete(self, ref: str) -> Flow[None]:
        try:
            if ref in self._planned.plan.pinned:
                yield calls.set_residency(ref, "normal")  # ends a pin, whoever set it
            yield from self._call(rule_calls.delete(ref), f"delete {ref}")
        except FailedPrecondition as error:  # in use, as by an alias that may be rolled back to it
            self._applied.later.append(f"delete {ref}: {error.message}")
        except YolopoolError as error:
            self._applied.failures.append(Failure(0, f"delete {ref}", error))

    def _drop(self, call: Call[Any], what: str) -> Flow[None]:
        if self._applied.failures:
            self._applied.later.append(f"{what}: not while others failed")
        else:
            yield from self._try(call, 0, what)

    def _try(self, call: Call[Any], line: int, what: str) -> Flow[None]:
        try:
            yield from self._call(call, what)
        except YolopoolError as error:
            self._applied.failures.append(Failure(line, what, error))

    def _call(self, call: Call[Any], what: str) -> Flow[None]:
        self._told(what)
        yield call
        self._applied.done.append(what)


def _imports(
    model: str, targets: Mapping[int, int], versions: Sequence[PresentVersion]
) -> list[str]:
    """Targets that are still imported, as name@version."""
    of_model = (one for one in versions if one.name == model and one.number in targets)
    return [one.ref for one in of_model if one.is_pending]
