"""Sets the aliases and schedules of a plan, and deletes what it prunes."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from yolopool.client import calls
from yolopool.client.calls import Call
from yolopool.client.fleet_file.alias_plan import DeleteAlias, SetAlias, resolved
from yolopool.client.fleet_file.application.outcome import Applied, Failure, FleetPlan, Told
from yolopool.client.fleet_file.application.step_calls import schedule_call, versions_call
from yolopool.client.fleet_file.fleet_steps import DeleteSchedule
from yolopool.client.fleet_file.parsing import references
from yolopool.client.fleet_file.present import PresentVersion
from yolopool.client.rollout import alias_records, schedule_calls
from yolopool.client.rules import rule_calls
from yolopool.client.uploads import Flow
from yolopool.errors import FailedPrecondition, YolopoolError
from yolopool.names import base_name


class SectionWork:
    """What is done once the versions are on their way, in the order of the methods."""

    def __init__(self, planned: FleetPlan, applied: Applied, told: Told) -> None:
        self._planned, self._applied, self._told = planned, applied, told
        self._later: set[str] = set()  # aliases that wait for an import

    def aliases(self, wait: bool, until: float) -> Flow[None]:
        """With `wait`, until each has moved; until: monotonic."""
        steps = self._planned.plan.aliases
        versions = (yield versions_call(self._planned.prefix)) if steps else ()
        for step in steps:
            if isinstance(step, DeleteAlias):
                call = alias_records.delete_alias(step.name, expected_revision=step.revision)
                yield from self._try(call, 0, f"delete alias {step.name}")
            else:
                yield from self._set(step, versions, wait, max(1.0, until - time.monotonic()))

    def _set(
        self, step: SetAlias, versions: Sequence[PresentVersion], wait: bool, timeout_s: float
    ) -> Flow[None]:
        alias, targets = step.after, resolved(step.after, versions) or {}
        if pending := _imports(alias.model, targets, versions):
            self._later.add(alias.name)
            self._applied.later.append(f"alias {alias.name} waits for the import of {pending[0]}")
            return
        order = alias_records.set_alias(
            alias.name,
            targets,
            keep_s=alias.keep_s,
            expected_revision=step.before.revision if step.before is not None else 0,
            why=f"apply {self._planned.file}"[:500],
            wait=wait,
            timeout_s=timeout_s,
        )
        yield from self._try(order, alias.line, f"alias {alias.name}: {step.words}")

    def schedules(self) -> Flow[None]:
        for step in self._planned.plan.schedules:
            if isinstance(step, DeleteSchedule):
                call = schedule_calls.delete_schedule(step.name)
                yield from self._try(call, 0, f"delete schedule {step.name}")
            elif waits := self._later.intersection(references(step.after)):
                said = f"schedule {step.after.name} waits for alias {min(waits)}"
                self._applied.later.append(said)
            else:
                call = schedule_call(step.after)
                yield from self._try(call, step.after.line, f"schedule {step.after.name}")

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
