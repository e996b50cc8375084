"""Client methods that plan and apply a fleet file, each a flow of calls that others make too.

A version is driven level by level: what it still differs by is computed again from each answer.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from yolopool.client import calls, uploads
from yolopool.client.calls import Call
from yolopool.client.fleet_file import present as pool
from yolopool.client.fleet_file.alias_plan import DeleteAlias, resolved
from yolopool.client.fleet_file.declared import Fleet, Version
from yolopool.client.fleet_file.digest_cache import DigestCache, usual_place
from yolopool.client.fleet_file.parsing import invalid, parse_fleet, stored_digest
from yolopool.client.fleet_file.planning import Entry, Plan, VersionPlan, changes, plan
from yolopool.client.fleet_file.present import Present, PresentVersion
from yolopool.client.fleet_file.registering import registered
from yolopool.client.fleet_file.resolving import Resolver
from yolopool.client.fleet_file.step_calls import calls_of, schedule_call
from yolopool.client.fleet_file.steps import (
    AFTER_IMPORT,
    DeleteSchedule,
    MakeBuild,
    ServeBuild,
    VersionStep,
)
from yolopool.client.fleet_file.text.reading import Faults
from yolopool.client.rollout import alias_records
from yolopool.client.uploads import FileWork, Flow, Sleep
from yolopool.errors import DeadlineExceeded, ModelImportFailed, YolopoolError
from yolopool.names import base_name
from yolopool.v1 import model_pb2, schedule_pb2

LIST_TIMEOUT_S, APPLY_TIMEOUT_S = 60.0, 3600.0
POLL_S = 0.5
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What an application of a file would do; `resolver` finds the file's files."""

    file: str
    plan: Plan
    prefix: str
    resolver: Resolver


@dataclass(frozen=True, slots=True)
class Failure:
    """What could not be done; the rest was. `line` of the file, 0: of none."""

    line: int
    what: str
    error: YolopoolError | OSError


@dataclass(slots=True)
class Applied:
    """`later`: what waits for imports and builds; another application does it."""

    done: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    later: list[str] = field(default_factory=list)


def plan_fleet(file: str | Path, *, prune: bool = False) -> Flow[FleetPlan]:
    """Compares a fleet file with the pool; "-" is standard input. With `prune` what the file does
    not name is to be deleted, of the sections that it has. Changes nothing.

    Raises FleetFileInvalid, whose message names file, line and key of each fault.
    """
    name = str(file)
    folder = Path() if name == "-" else Path(file).parent
    data: bytes = yield FileWork(partial(_read, name))
    fleet: Fleet = yield FileWork(partial(parse_fleet, data, name))
    faults = Faults()
    resolver = Resolver(folder, DigestCache(usual_place(), time.time()))
    entries: list[Entry] = yield FileWork(partial(resolver.entries, fleet, faults))
    if faults.count:
        raise invalid(faults, name)
    present = yield from _present(fleet)
    planned = plan(fleet, entries, present, faults, prune=prune)
    if faults.count:
        raise invalid(faults, name)
    return FleetPlan(name, planned, fleet.prefix, resolver)


def apply_fleet(
    planned: FleetPlan,
    *,
    wait: bool = False,
    told: Told | None = None,
    timeout_s: float = APPLY_TIMEOUT_S,
) -> Flow[Applied]:
    """Does what `plan_fleet` planned. Repeating both changes nothing.

    With `wait`, returns when all is imported, built and loaded as the file says. What fails ends
    nothing but its own version; nothing is deleted then.
    """
    work = _Work(planned, told or (lambda text: None))
    until = time.monotonic() + timeout_s
    yield from work.register()
    yield from work.advance()
    while wait and work.waiting() and time.monotonic() < until:
        yield Sleep(POLL_S)
        yield from work.look()
        yield from work.advance()
    work.close(wait)
    yield from work.aliases(wait, until)
    yield from work.schedules()
    yield from work.delete()
    return work.applied


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def _present(fleet: Fleet) -> Flow[Present]:
    """What the pool has of the file's sections: nobody is asked about the others."""
    versions: Sequence[PresentVersion] = ()
    if fleet.models is not None or fleet.aliases:
        versions = yield versions_call(fleet.prefix)
    schedules = (yield schedules_call()) if fleet.schedules is not None else None
    aliases = None
    if fleet.aliases is not None:
        aliases = yield alias_records.aliases(fleet.prefix)
    return Present(tuple(versions), schedules, aliases)


def versions_call(prefix: str) -> Call[tuple[PresentVersion, ...]]:
    request = model_pb2.ListModelsRequest(name_prefix=prefix)
    return Call(
        "model",
        "ListModels",
        request,
        LIST_TIMEOUT_S,
        lambda reply: pool.versions_of(reply.models),
    )


def schedules_call() -> Call[Any]:
    request = schedule_pb2.ListSchedulesRequest()
    return Call("schedule", "ListSchedules", request, calls.READ_TIMEOUT_S, pool.schedules_of)


@dataclass(slots=True)
class _Running:
    """A version under way. `tried`: steps that were sent, each once."""

    plan: VersionPlan
    present: PresentVersion | None
    tried: list[VersionStep] = field(default_factory=list)
    is_broken: bool = False

    @property
    def declared(self) -> Version:
        return self.plan.entry.version

    @property
    def ref(self) -> str:
        return self.present.ref if self.present is not None else self.plan.ref

    def waits(self) -> str:
        """What it waits for; empty: nothing any more."""
        there = self.present
        if there is None or self.is_broken or there.state == "FAILED":
            return ""
        if there.is_pending:
            return "its import"
        serving = [build.slot for build in self.declared.builds if build.serve]
        made = [there.builds[slot].state for slot in serving if slot in there.builds]
        if any(state in ("UPLOADED", "IMPORTING") for state in made):
            return "its build"
        load = self.declared.load
        standby = self.declared.residency.mode == "hot-standby"
        need = load.replicas if load is not None else int(standby)
        return f"its load: {there.why or 'it is under way'}" if there.hot < need else ""

    def next_steps(self) -> Iterator[VersionStep]:
        """Steps that can be sent now and were not."""
        there = self.present
        if there is None or self.is_broken:
            return
        for step in changes(self.plan.entry, there):
            if step not in self.tried and _is_possible(step, there):
                yield step


def _imports(
    model: str, targets: Mapping[int, int], versions: Sequence[PresentVersion]
) -> list[str]:
    """Targets that are still imported, as name@version."""
    of_model = (one for one in versions if one.name == model and one.number in targets)
    return [one.ref for one in of_model if one.is_pending]


def _is_possible(step: VersionStep, there: PresentVersion) -> bool:
    """Whether it need not wait for an import."""
    if isinstance(step, AFTER_IMPORT) and there.state != "READY":
        return False
    if isinstance(step, ServeBuild) and step.variant:
        slot = f"{step.variant.replace('/', '-')}-{step.device}"
        return slot in there.builds and there.builds[slot].state not in ("UPLOADED", "IMPORTING")
    return True


class _Work:
    """One application of a plan."""

    def __init__(self, planned: FleetPlan, told: Told) -> None:
        self.applied = Applied()
        self._planned, self._told = planned, told
        self._running = [_Running(one, one.present) for one in planned.plan.versions]

    # --- versions ---------------------------------------------------------------------------

    def register(self) -> Flow[None]:
        """Those with a number first, in their order: a name's numbers only grow."""
        new = [one for one in self._running if one.present is None]
        new.sort(key=lambda one: (not one.declared.version, one.declared.version))
        for running in new:
            self._told(f"register {running.ref} from {running.declared.artifact}")
            try:
                running.present = yield from registered(running.plan.entry, self._planned.resolver)
            except (YolopoolError, OSError) as error:
                self._failed(running, "register", error)
            else:
                self.applied.done.append(f"registered {running.ref}")

    def advance(self) -> Flow[None]:
        """Sends what can be sent of every version."""
        for running in self._running:
            for step in [*running.next_steps()]:
                running.tried.append(step)
                self._told(f"{running.ref}: {step.words}")
                try:
                    yield from self._send(running, step)
                except (YolopoolError, OSError) as error:
                    self._failed(running, step.words, error)
                    break
                self.applied.done.append(f"{running.ref}: {step.words}")

    def _send(self, running: _Running, step: VersionStep) -> Flow[None]:
        if isinstance(step, MakeBuild):
            images = step.build.calibration
            if images and not stored_digest(images):
                yield from uploads.upload_images(self._planned.resolver.path(images))
        for call in calls_of(running.ref, step):
            running.present = yield call

    def look(self) -> Flow[None]:
        """Sees how far the imports, builds and loads are."""
        found = yield versions_call(self._planned.prefix)
        there = {one.ref: one for one in found}
        for running in self._running:
            if running.present is None:
                continue
            now = there.get(running.present.ref)
            running.present, running.is_broken = now, running.is_broken or now is None

    def waiting(self) -> bool:
        return any(one.waits() for one in self._running)

    def close(self, waited: bool) -> None:
        """What did not come about: an import that failed, and what the time was too short for."""
        for running in self._running:
            there = running.present
            if there is not None and there.state == "FAILED":
                why = f"{there.ref} FAILED: {there.why}: delete it to try the same file again"
                self._failed(running, "import", ModelImportFailed(why))
            elif waits := running.waits():
                said = f"{running.ref} waits for {waits}"
                if waited:
                    self._failed(running, "wait", DeadlineExceeded(said))
                else:
                    self.applied.later.append(said)
            elif there is not None and not running.is_broken:
                self._close_builds(running, there)

    def _close_builds(self, running: _Running, there: PresentVersion) -> None:
        for build in running.declared.builds:
            made = there.builds.get(build.slot)
            if made is not None and made.state == "FAILED":
                why = f"{made.name} FAILED: {made.reason}: delete it to try again"
                self._failed(running, "build", ModelImportFailed(why))

    def _failed(self, running: _Running, what: str, error: YolopoolError | OSError) -> None:
        running.is_broken = True
        failure = Failure(running.declared.line, f"{running.ref}: {what}", error)
        self.applied.failures.append(failure)

    # --- the other sections -----------------------------------------------------------------

    def aliases(self, wait: bool, until: float) -> Flow[None]:
        steps = self._planned.plan.aliases
        versions = (yield versions_call(self._planned.prefix)) if steps else ()
        for step in steps:
            if isinstance(step, DeleteAlias):
                call = alias_records.delete_alias(step.name, expected_revision=step.revision)
                yield from self._try(call, 0, f"delete alias {step.name}")
                continue
            alias, targets = step.after, resolved(step.after, versions)
            pending = _imports(alias.model, targets or {}, versions)
            if pending:
                self.applied.later.append(
                    f"alias {alias.name} waits for the import of {pending[0]}"
                )
                continue
            order = alias_records.set_alias(
                alias.name,
                targets or {},
                keep_s=alias.keep_s,
                expected_revision=step.before.revision if step.before is not None else 0,
                why=f"apply {self._planned.file}"[:500],
                wait=wait,
                timeout_s=max(1.0, until - time.monotonic()),
            )
            yield from self._try(order, alias.line, f"alias {alias.name}: {step.words}")

    def schedules(self) -> Flow[None]:
        for step in self._planned.plan.schedules:
            if isinstance(step, DeleteSchedule):
                call, line, what = (
                    calls.delete_schedule(step.name),
                    0,
                    f"delete schedule {step.name}",
                )
            else:
                call, line, what = (
                    schedule_call(step.after),
                    step.after.line,
                    f"schedule {step.after.name}",
                )
            yield from self._try(call, line, what)

    def delete(self) -> Flow[None]:
        """What is pruned, once everything else is as the file has it: what takes its place may not
        be there yet.
        """
        waiting = {one.declared.name for one in self._running if one.waits()}
        for ref in self._planned.plan.deleted:
            name = base_name(ref.partition("@")[0])
            if self.applied.failures:
                self.applied.later.append(f"delete {ref}: not while others failed")
            elif name in waiting:
                self.applied.later.append(
                    f"delete {ref}: another version of {name} is imported first"
                )
            else:
                yield from self._try(calls.delete(ref), 0, f"delete {ref}")

    def _try(self, call: Call[Any], line: int, what: str) -> Flow[None]:
        self._told(what)
        try:
            yield call
        except YolopoolError as error:
            self.applied.failures.append(Failure(line, what, error))
        else:
            self.applied.done.append(what)
