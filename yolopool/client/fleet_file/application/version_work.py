"""Drives the versions of a plan to where their entries have them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from yolopool.client import uploads
from yolopool.client.fleet_file.application.entry_registration import registered
from yolopool.client.fleet_file.application.outcome import Applied, Failure, FleetPlan, Told
from yolopool.client.fleet_file.application.step_calls import calls_of, versions_call
from yolopool.client.fleet_file.declared import Version
from yolopool.client.fleet_file.fleet_steps import AFTER_IMPORT, MakeBuild, ServeBuild, VersionStep
from yolopool.client.fleet_file.planning import VersionPlan, changes
from yolopool.client.fleet_file.present import PENDING, PresentVersion
from yolopool.client.fleet_file.text.wrong import stored_digest
from yolopool.client.uploads import Flow
from yolopool.errors import DeadlineExceeded, ModelImportFailed, YolopoolError


@dataclass(slots=True)
class Running:
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
        if any(there.builds[slot].state in PENDING for slot in serving if slot in there.builds):
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


def _is_possible(step: VersionStep, there: PresentVersion) -> bool:
    """Whether it need not wait for an import."""
    if isinstance(step, AFTER_IMPORT) and there.state != "READY":
        return False
    if isinstance(step, ServeBuild) and step.variant:
        slot = f"{step.variant.replace('/', '-')}-{step.device}"
        return slot in there.builds and there.builds[slot].state not in PENDING
    return True


class VersionWork:
    """What a version still differs by is computed again from each answer."""

    def __init__(self, planned: FleetPlan, applied: Applied, told: Told) -> None:
        self._planned, self._applied, self._told = planned, applied, told
        self._running = [Running(one, one.present) for one in planned.plan.versions]

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
                self._applied.done.append(f"registered {running.ref}")

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
                self._applied.done.append(f"{running.ref}: {step.words}")

    def _send(self, running: Running, step: VersionStep) -> Flow[None]:
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
            if running.present is not None:
                now = there.get(running.present.ref)
                running.present, running.is_broken = now, running.is_broken or now is None

    def waiting(self) -> frozenset[str]:
        """The models of which a version waits."""
        return frozenset(one.declared.name for one in self._running if one.waits())

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
                    self._applied.later.append(said)
            elif there is not None and not running.is_broken:
                self._close_builds(running, there)

    def _close_builds(self, running: Running, there: PresentVersion) -> None:
        for build in running.declared.builds:
            made = there.builds.get(build.slot)
            if made is not None and made.state == "FAILED":
                why = f"{made.name} FAILED: {made.reason}: delete it to try again"
                self._failed(running, "build", ModelImportFailed(why))

    def _failed(self, running: Running, what: str, error: YolopoolError | OSError) -> None:
        running.is_broken = True
        failure = Failure(running.declared.line, f"{running.ref}: {what}", error)
        self._applied.failures.append(failure)
