"""The loop of rollouts: tells what was gathered here, and where this control plane leads, judges.

Level-triggered: the record of the alias says at which step a rollout is, or how it ended, and the
loop makes the alias mean that. Each write can be repeated, so the next leader goes on.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.rollout.alias_orders import AliasOrders, Order
from control_plane.rollout.gathered import Gathered, topic_of
from control_plane.rollout.judge import Decision, step
from control_plane.rollout.switch import let_go
from control_plane.rollout.switch_controller import standing_of
from control_plane.store.registry import Registry
from control_plane.types.desired import Want, WantChanges, WantSource
from control_plane.types.event import EventKind
from control_plane.types.lease import FencingToken
from control_plane.types.rollout.alias import Alias, ChangeKind
from control_plane.types.rollout.progress import Outcome, Rollout
from control_plane.types.version import VersionKey
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable, StaleToken, ValidationFailed, YolopoolError
from yolopool.evaluation.agreement.evidence import Evidence
from yolopool.server.clock import Clock

log = structlog.get_logger()

TICK_S = 1.0


class Rollouts:
    """`token` returns the leader's acting token, None where this control plane may not act."""

    def __init__(
        self,
        name: str,
        registry: Registry,
        view: View,
        refresh: Refresh,
        orders: AliasOrders,
        gathered: Gathered,
        recorder: EventRecorder,
        clock: Clock,
        token: Callable[[], FencingToken | None],
    ) -> None:
        self._name = name
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._orders = orders
        self._gathered = gathered
        self._recorder = recorder
        self._clock = clock
        self._token = token

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                await self.once()
            except RegistryUnavailable as error:
                log.info("rollouts wait for the registry", why=error.message)
            except StaleToken:
                log.info("another control plane leads: it goes on with the rollouts")
            except Exception:
                log.exception("a rollout failed: this is a bug")
            await asyncio.sleep(TICK_S)

    async def once(self) -> None:
        """One look at all rollouts."""
        if not self._view.is_loaded:
            return
        aliases = [one for one in self._view.desired.aliases.values() if one.rollout is not None]
        self._gathered.keep_only(frozenset(one.rollout.id for one in aliases if one.rollout))
        await self._tell()
        token = self._token()
        if token is None:
            return
        for alias in aliases:
            if alias.rollout is None or not alias.rollout.is_open:
                continue
            try:
                await self._advance(alias, alias.rollout, token)
            except (RegistryUnavailable, StaleToken):
                raise
            except YolopoolError as error:
                # Someone changed the alias meanwhile, or deleted a version: the next look knows.
                log.info("a rollout waits", alias=str(alias.key), why=error.message)
                await self._refresh()

    async def evidence(self, rollout: Rollout) -> Evidence:
        """What all control planes gathered in the present step. Raises RegistryUnavailable."""
        total = Evidence(rollout.plan.tolerance)
        own = self._gathered.look(rollout.id)
        told = await self._registry.evidence.told(topic_of(rollout))
        for plane, text in told.items():
            if plane == self._name and own is not None and own.rollout.step == rollout.step:
                continue
            try:
                total.add(Evidence.from_plain(json.loads(text), rollout.plan.tolerance))
            except (ValueError, KeyError) as error:
                log.warning("evidence can't be read", control_plane=plane, why=repr(error))
        if own is not None and own.rollout.step == rollout.step:
            total.add(own.evidence)
        return total

    async def look(self, alias: Alias, rollout: Rollout) -> tuple[Decision, Evidence]:
        """What the judge says now."""
        evidence = await self.evidence(rollout)
        names = class_names_of(self._view, alias, rollout)
        return step(rollout, evidence, self._clock.unix(), names), evidence

    async def _tell(self) -> None:
        for one in self._gathered.every():
            if one.evidence.requests == one.told:
                continue
            count, text = one.evidence.requests, json.dumps(one.evidence.to_plain())
            await self._registry.evidence.tell(one.topic, self._name, text)
            one.told = count

    async def _advance(self, alias: Alias, rollout: Rollout, token: FencingToken) -> None:
        if not rollout.running:
            await self._settle(alias, rollout, token)
            return
        hindered = self._deleted(alias, rollout) or _hindered(alias, rollout)
        if hindered:
            aborted = rollout.ended(Outcome.ABORTED, (hindered,), self._clock.unix())
            await self._put(alias, aborted, token)
            return
        await self._hold_both(alias, rollout)
        if alias.switch is not None:
            return
        if not _means(alias, rollout):
            first = alias.targets[0].version == rollout.stable and len(alias.targets) == 1
            kind = ChangeKind.PROMOTE if first else ChangeKind.STEP
            why = f"{rollout.share / 10:g} % {rollout.why}".strip()
            order = Order(by_of(rollout), why, expected=alias.revision)
            try:
                await self._orders.move(alias.key, rollout.targets, kind, order)
            except ValidationFailed as error:
                aborted = rollout.ended(Outcome.ABORTED, (error.message,), self._clock.unix())
                await self._put(alias, aborted, token)
            return
        decision, _ = await self.look(alias, rollout)
        if decision.rollout is not rollout:
            held = await self._put(alias, decision.rollout, token)
            await self._registry.evidence.forget(topic_of(rollout))
            if held.rollout is not None and not held.rollout.running:
                await self._settle(held, held.rollout, token)

    async def _settle(self, alias: Alias, rollout: Rollout, token: FencingToken) -> None:
        """Makes the alias mean what the outcome says, unless others moved it since."""
        moved_by = _moved_by_others(alias, rollout)
        pending = alias.switch is not None and alias.switch.by == by_of(rollout)
        lost = any(self._is_gone(alias, target.version) for target in rollout.targets)
        wrong = not _means(alias, rollout) and not moved_by and not lost
        if wrong or (pending and alias.switch and alias.switch.targets != rollout.targets):
            back = rollout.outcome != Outcome.DONE
            kind = ChangeKind.ROLLBACK if back else ChangeKind.STEP
            why = "; ".join(rollout.reasons)[:500]
            order = Order(by_of(rollout), why, expected=alias.revision, force=back)
            alias = await self._orders.move(alias.key, rollout.targets, kind, order)
            if not _means(alias, rollout):
                return
        await self._put(alias, replace(rollout, settled=True), token)

    async def _put(self, alias: Alias, rollout: Rollout, token: FencingToken) -> Alias:
        shadow = None if rollout.settled else alias.shadow
        wants = WantChanges()
        if rollout.settled:
            standing = standing_of(self._view, alias, self._clock.unix())
            wants = WantChanges(drop=let_go(alias, rollout, standing))
        new = replace(alias, rollout=rollout, shadow=shadow)
        held = await self._registry.put_alias(new, alias.revision, wants, token)
        for key in wants.drop:
            self._view.want_nowhere(key)
        await self._refresh()
        before = alias.rollout
        if before is not None and (before.step, before.outcome) != (rollout.step, rollout.outcome):
            tell(self._recorder, held, rollout)
        return held

    def _deleted(self, alias: Alias, rollout: Rollout) -> str:
        """Which of both versions was deleted, in words; empty: none."""
        gone = [
            f"{alias.model}@{number}"
            for number in (rollout.stable, rollout.candidate)
            if self._is_gone(alias, number)
        ]
        return f"{' and '.join(gone)} was deleted" if gone else ""

    def _is_gone(self, alias: Alias, number: int) -> bool:
        return VersionKey(alias.model, number) not in self._view.desired.versions

    async def _hold_both(self, alias: Alias, rollout: Rollout) -> None:
        """Both versions stay loaded while they are compared."""
        now, wants = self._clock.unix(), self._view.desired.wants
        keys = (VersionKey(alias.model, number) for number in (rollout.stable, rollout.candidate))
        put = [
            Want(key, 1, False, WantSource.ALIAS, now)
            for key in keys
            if key not in wants or wants[key].source is WantSource.PREFETCH
        ]
        if put:
            await self._registry.change_wants(put)
            await self._refresh()


def class_names_of(view: View, alias: Alias, rollout: Rollout) -> tuple[str, ...]:
    """Of the stable version, by class id."""
    version = view.desired.versions.get(VersionKey(alias.model, rollout.stable))
    return version.pack.class_names if version is not None and version.pack is not None else ()


def by_of(rollout: Rollout) -> str:
    """As whom a rollout moves its alias."""
    return f"rollout {rollout.id}"


def tell(recorder: EventRecorder, alias: Alias, rollout: Rollout) -> None:
    """Records the beginning, a step or the end of a rollout."""
    where = f"at {rollout.share / 10:g} %" if rollout.share else "in shadow"
    what = rollout.outcome.lower().replace("_", " ") or where
    why = f": {'; '.join(rollout.reasons)}" if rollout.reasons else ""
    key = VersionKey(alias.model, rollout.candidate)
    recorder.record(
        EventKind.ROLLOUT,
        version=key,
        reason=rollout.outcome,
        message=f"{alias.key} {rollout.stable} -> {rollout.candidate} {what}{why}",
    )
    log.info("rollout", alias=str(alias.key), candidate=str(key), now=what, why=rollout.reasons)


def _means(alias: Alias, rollout: Rollout) -> bool:
    """Whether the alias means what the rollout wants, in whatever order."""
    return set(alias.targets) == set(rollout.targets)


def _hindered(alias: Alias, rollout: Rollout) -> str:
    """Why a rollout can't go on; empty: it can."""
    by = _moved_by_others(alias, rollout)
    if by:
        return f"{by} moved the alias"
    last = alias.history[-1] if alias.history else None
    if (
        last is not None
        and last.kind == ChangeKind.ABANDON
        and last.by == by_of(rollout)
        and last.at_unix_s >= rollout.step_since_unix_s
    ):
        return f"the candidate can't take its share: {last.why}"
    return ""


def _moved_by_others(alias: Alias, rollout: Rollout) -> str:
    """Who else gave the alias an order since the rollout began; empty: nobody."""
    if alias.switch is not None and alias.switch.by != by_of(rollout):
        return alias.switch.by or "someone"
    for change in alias.history:
        moved = change.kind != ChangeKind.ABANDON and change.before != change.after
        if moved and change.at_unix_s > rollout.since_unix_s and change.by != by_of(rollout):
            return change.by or "someone"
    return ""
