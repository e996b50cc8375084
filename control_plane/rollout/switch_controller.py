"""The loop that carries switches of aliases on: looks at each alias, and does its next step.

Every control plane runs it, and only the leader acts, under its token. A step is one write, and
what is next is decided from what was written: the next leader goes on where the last one stopped.
"""

from collections.abc import Callable

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.rollout.switch import Standing, Step, missing, step
from control_plane.store.registry import DesiredState
from control_plane.types.desired import Desired, WantSource
from control_plane.types.event import EventKind
from control_plane.types.lease import FencingToken
from control_plane.types.rollout.alias import Alias, AliasKey, ChangeKind, Targets
from control_plane.types.version import VersionKey, VersionState
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import AliasChanged, RegistryUnavailable, StaleToken, VersionNotFound
from yolopool.server.clock import Clock
from yolopool.vocabulary import ReplicaState

log = structlog.get_logger()

TICK_S = 0.5
# A kept version that was asked for within so many seconds has callers of its own.
IN_USE_S = 10.0


class SwitchController:
    """`token` returns the leader's acting token, None where this control plane may not act."""

    def __init__(
        self,
        registry: DesiredState,
        view: View,
        refresh: Refresh,
        recorder: EventRecorder,
        clock: Clock,
        token: Callable[[], FencingToken | None],
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._recorder = recorder
        self._clock = clock
        self._token = token
        # The revision that was looked at, and the aliases that something is left to do of.
        self._seen = (-1, "")
        self._active: list[AliasKey] = []

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            seen = self._view.waiters.changes
            try:
                await self.step()
            except RegistryUnavailable as error:
                log.info("aliases wait for the registry", why=error.message)
            except StaleToken:
                log.info("another control plane leads: it goes on with the aliases")
            except Exception:
                log.exception("a switch of an alias failed: this is a bug")
            await self._view.waiters.after(seen, TICK_S)

    async def step(self) -> None:
        """One look at all aliases, and the next step of each."""
        token, written = self._token(), False
        if token is None or not self._view.is_loaded:
            return
        now, desired = self._clock.unix(), self._view.desired
        if self._seen != (desired.revision, desired.mark):
            self._seen = (desired.revision, desired.mark)
            self._active = [one.key for one in desired.aliases.values() if _is_active(desired, one)]
        for key in self._active:
            alias = self._view.desired.aliases.get(key)
            if alias is None:
                continue
            found = step(alias, standing_of(self._view, alias, now), now)
            if found is not None:
                written |= await self._write(alias, found, token)
        if written:
            await self._refresh()

    async def _write(self, alias: Alias, found: Step, token: FencingToken) -> bool:
        if found.alias is None:
            await self._registry.change_wants(found.wants.put, found.wants.drop)
            return True
        try:
            held = await self._registry.put_alias(found.alias, alias.revision, found.wants, token)
        except (AliasChanged, VersionNotFound) as error:
            # The next look is at what is there then.
            log.info("an alias changed meanwhile", alias=str(alias.key), why=error.message)
            await self._refresh()
            return False
        tell(self._recorder, alias, held)
        return True


def standing_of(view: View, alias: Alias, now: float, to: Targets = ()) -> Standing:
    """What this process knows of the versions that an alias needs, and of those that it is to move
    to. now: Unix seconds.
    """
    numbers = alias.versions | {target.version for target in to}
    keys = [VersionKey(alias.model, number) for number in sorted(numbers)]
    replicas = {key.number: [replica for _, replica in view.replicas(key)] for key in keys}
    wants = {key.number: view.desired.want(key) for key in keys}
    blocked = {key.number: view.waits[key] for key in keys if key in view.waits}
    others = [
        other
        for other in view.desired.aliases.values()
        if other.model == alias.model and other.key != alias.key
    ]
    return Standing(
        loaded={
            number: sum(
                one.state is ReplicaState.HOT
                or (one.state is ReplicaState.WARM and one.footprint is not None)
                for one in found
            )
            for number, found in replicas.items()
        },
        hot={
            number: sum(one.state is ReplicaState.HOT for one in found)
            for number, found in replicas.items()
        },
        wants={
            number: want
            for number, want in wants.items()
            if want is not None and want.source is not WantSource.PREFETCH
        },
        hopeless={
            **{
                number: f"can't be loaded: {one.why}"
                for number, one in blocked.items()
                if one.final
            },
            **{key.number: why for key in keys if (why := _why_hopeless(view, key))},
        },
        waits={number: one.why for number, one in blocked.items()},
        in_use=frozenset(
            number
            for number, found in replicas.items()
            if any(one.last_used_unix_s > now - IN_USE_S for one in found)
        ),
        named=frozenset(number for other in others for number in other.versions),
        served=frozenset(
            target.version
            for other in others
            for target in (*other.targets, *(other.switch.targets if other.switch else ()))
        ),
    )


def waits_for(view: View, alias: Alias, now: float) -> str:
    """What a switch in progress waits for, for people; empty: nothing is in progress."""
    if alias.switch is None:
        return ""
    standing = standing_of(view, alias, now)
    lacking = missing(alias, alias.switch, standing)
    parts = []
    for version, count in lacking.items():
        why = standing.waits.get(version, "")
        more = f"{count} more {'replica' if count == 1 else 'replicas'}"
        parts.append(f"{more} of {alias.model}@{version}{f' ({why})' if why else ''}")
    return " and ".join(parts)


def tell(recorder: EventRecorder, before: Alias | None, after: Alias) -> None:
    """Records what was added to the history of an alias."""
    known = len(before.history) if before is not None else 0
    fresh = after.history[known:] if len(after.history) > known else after.history[-1:]
    if before is not None and before.history[-1:] == after.history[-1:]:
        return
    for change in fresh:
        version = VersionKey(after.model, max(change.after, key=lambda one: one.weight).version)
        gave_up = change.kind == ChangeKind.ABANDON
        moved = change.why if gave_up else f"{in_words(change.before)} -> {in_words(change.after)}"
        why = f": {change.why}" if change.why and not gave_up else ""
        recorder.record(
            EventKind.ALIAS,
            version=version,
            reason="SWITCH_ABANDONED" if gave_up else "",
            message=f"{after.key} {change.kind.lower()} {moved}, by {change.by or 'nobody'}{why}",
        )
        log.info("alias", alias=str(after.key), kind=str(change.kind), moved=moved, by=change.by)


def in_words(targets: Targets) -> str:
    """Targets for people: 3, or 3 95 % + 4 5 %."""
    if len(targets) == 1:
        return str(targets[0].version)
    parts = [f"{target.version} {target.weight / 10:g} %" for target in targets]
    return " + ".join(parts) or "nothing"


def explained(alias: Alias, version: int, waits: str, now: float) -> str:
    """What an alias has to do with a version that it needs, in a sentence."""
    if alias.family is not None:
        return f"{alias.key} is one of {', '.join(alias.family.models)}."
    told = [f"{alias.key} means {in_words(alias.targets)}"]
    if alias.switch is not None:
        to = in_words(alias.switch.targets)
        told.append(f"it is to mean {to}, and waits for {waits or 'the leader'}")
    for kept in alias.kept:
        if kept.version == version:
            left_s = max(0.0, kept.until_unix_s - now)
            told.append(f"{version} stays loaded for {left_s:.0f} s more, for a rollback")
    return "; ".join(told) + "."


def _why_hopeless(view: View, key: VersionKey) -> str:
    version = view.desired.versions.get(key)
    if version is None:
        return "was deleted"
    if version.state is VersionState.FAILED:
        return f"can't be used: its import failed with {version.reason}"
    return ""


def _is_active(desired: Desired, alias: Alias) -> bool:
    if alias.switch is not None or alias.kept:
        return True
    wants = (desired.wants.get(VersionKey(alias.model, one.version)) for one in alias.targets)
    return any(want is not None and want.source is WantSource.ALIAS for want in wants)
