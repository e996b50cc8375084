"""How an alias moves without a gap: what is done next for one alias, as data. Pure.

The order is: want the new targets as the old ones are, wait until as many replicas are loaded and
warm, move, keep the old ones loaded for a while, let them go. Each step is decided anew from the
record and the fleet, so that whoever leads next goes on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from control_plane.types.desired import NO_CHANGES, Want, WantChanges, WantSource
from control_plane.types.rollout.alias import (
    WHOLE,
    Alias,
    AliasChange,
    ChangeKind,
    Kept,
    Switch,
    Targets,
)
from control_plane.types.rollout.progress import Rollout
from control_plane.types.version import VersionKey

# A version that was left stays at least so long: requests that were on their way to it end there.
DRAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """The versions of one model, by number. `loaded`, `hot`: replicas that could answer now, and
    that are on their device. `hopeless`: why a version can't be loaded. `waits`: what a load waits
    for. `in_use`: asked for by callers. `named`: other aliases need it; `served`: they mean it, or
    move to it.
    """

    loaded: Mapping[int, int] = field(default_factory=dict)
    hot: Mapping[int, int] = field(default_factory=dict)
    wants: Mapping[int, Want] = field(default_factory=dict)
    hopeless: Mapping[int, str] = field(default_factory=dict)
    waits: Mapping[int, str] = field(default_factory=dict)
    in_use: frozenset[int] = frozenset()
    named: frozenset[int] = frozenset()
    served: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """What to write: the alias (None: as it is), and changes of wants."""

    alias: Alias | None = None
    wants: WantChanges = NO_CHANGES


def begun(alias: Alias, switch: Switch, standing: Standing, *, force: bool) -> Step:
    """The first step of a switch: already the last one where all is loaded, or by `force`. A switch
    in progress is given up.
    """
    now, drop = switch.since_unix_s, tuple[VersionKey, ...]()
    if alias.switch is not None:
        before = given_up(alias, alias.switch, "another order came", standing, now)
        alias = before.alias or alias
        drop = tuple(
            key for key in before.wants.drop if key.number not in _versions(switch.targets)
        )
    if force or not missing(alias, switch, standing):
        last = moved(alias, switch, standing, now)
        return replace(last, wants=replace(last.wants, drop=drop))
    wants = tuple(_wants_of(alias, switch, standing, now))
    return Step(replace(alias, switch=switch), WantChanges(wants, drop))


def step(alias: Alias, standing: Standing, now: float) -> Step | None:
    """What is to be done next; None: nothing. now: Unix seconds."""
    if alias.switch is not None:
        return _of_switch(alias, alias.switch, standing, now)
    if any(kept.until_unix_s <= now for kept in alias.kept):
        return _released(alias, standing, now)
    if not alias.kept and (wants := _settled(alias, standing, None)):
        return Step(wants=WantChanges(wants))
    return None


def ended(alias: Alias, standing: Standing) -> WantChanges:
    """What becomes of the wants when an alias goes."""
    alone = replace(alias, switch=None, rollout=None, shadow=None)
    wants = _released(alone, standing, float("inf")).wants
    more = let_go(alias, alias.rollout, standing) if alias.rollout is not None else ()
    if alias.switch is not None:
        more += given_up(alone, alias.switch, "", standing, 0.0).wants.drop
    return replace(wants, drop=tuple(dict.fromkeys((*wants.drop, *more))))


def let_go(alias: Alias, rollout: Rollout, standing: Standing) -> tuple[VersionKey, ...]:
    """The versions that only the comparison of a rollout needed."""
    needed = replace(alias, rollout=None, shadow=None).versions | standing.named
    return tuple(
        want.key
        for number in (rollout.stable, rollout.candidate)
        if number not in needed
        and (want := standing.wants.get(number)) is not None
        and want.source is WantSource.ALIAS
    )


def missing(alias: Alias, switch: Switch, standing: Standing) -> dict[int, int]:
    """How many replicas of its targets a switch still waits for, by version."""
    needed = _needed(alias, switch.targets, standing)
    there = standing.hot if _is_pinned(alias, standing) else standing.loaded
    lacking = {version: count - there.get(version, 0) for version, count in needed.items()}
    return {version: count for version, count in lacking.items() if count > 0}


def moved(alias: Alias, switch: Switch, standing: Standing, now: float) -> Step:
    """The targets of a switch, whether they are loaded or not."""
    before, after = alias.targets, switch.targets
    left = _versions(before) - _versions(after)
    keep_s = DRAIN_S if switch.kind == ChangeKind.ROLLBACK else max(DRAIN_S, alias.keep_s)
    earlier = (
        replace(kept, until_unix_s=min(kept.until_unix_s, now + DRAIN_S))
        for kept in alias.kept
        if kept.version not in _versions(after) | left
    )
    kept = [_kept(alias, version, standing, now + keep_s) for version in sorted(left)]
    change = AliasChange(now, switch.kind, switch.by, switch.why, before, after, switch.request_id)
    new = replace(
        alias, targets=after, switch=None, kept=(*earlier, *kept), changed_unix_s=now
    ).noted(change)
    wants = [
        *_wants_of(alias, switch, standing, now),
        *(_held(alias, version, standing, now) for version in left - standing.served),
    ]
    return Step(new, WantChanges(tuple(want for want in wants if want is not None)))


def _of_switch(alias: Alias, switch: Switch, standing: Standing, now: float) -> Step | None:
    for target in switch.targets:
        if target.version in standing.hopeless:
            why = f"{alias.model}@{target.version} {standing.hopeless[target.version]}"
            return given_up(alias, switch, why, standing, now)
    lacking = missing(alias, switch, standing)
    if not lacking:
        return moved(alias, switch, standing, now)
    if now >= switch.until_unix_s:
        version = min(lacking)
        why = standing.waits.get(version, "it was still being loaded")
        took_s = switch.until_unix_s - switch.since_unix_s
        why = f"{alias.model}@{version} was not loaded in {took_s:g} s: {why}"
        return given_up(alias, switch, why, standing, now)
    wants = tuple(_wants_of(alias, switch, standing, now))
    return Step(wants=WantChanges(wants)) if wants else None


def _needed(alias: Alias, targets: Targets, standing: Standing) -> dict[int, int]:
    """Replicas that each of the targets must have: as many as the old ones have, by its weight;
    while those are away as many as are wanted of them. None where nobody wants those.
    """
    there = max((standing.loaded.get(one.version, 0) for one in alias.targets), default=0)
    most = there or _most(alias, standing)
    return {one.version: ceil(most * one.weight / WHOLE) for one in targets}


def _most(alias: Alias, standing: Standing) -> int:
    return max((_count(one.version, standing) for one in alias.targets), default=0)


def _count(version: int, standing: Standing) -> int:
    want = standing.wants.get(version)
    return max(standing.loaded.get(version, 0), want.replicas if want is not None else 0)


def _is_pinned(alias: Alias, standing: Standing) -> bool:
    wants = (standing.wants.get(target.version) for target in alias.targets)
    return any(want is not None and want.pinned for want in wants)


def _wants_of(alias: Alias, switch: Switch, standing: Standing, now: float) -> Iterable[Want]:
    """The wants that the targets of a switch lack."""
    pinned, most = _is_pinned(alias, standing), _most(alias, standing)
    for target in switch.targets:
        version, count = target.version, ceil(most * target.weight / WHOLE)
        old = standing.wants.get(version)
        is_own = old is not None and old.source is WantSource.ADMIN
        new = Want(
            VersionKey(alias.model, version),
            max(count, old.replicas if old is not None else 0),
            pinned or (old is not None and old.pinned),
            WantSource.ADMIN if is_own else WantSource.ALIAS,
            old.since_unix_s if old is not None else now,
        )
        if count and new != old:
            yield new


def _kept(alias: Alias, version: int, standing: Standing, until: float) -> Kept:
    want = standing.wants.get(version)
    if want is None:
        return Kept(version, until)
    if want.source is WantSource.ALIAS and alias.kept:
        # It was promoted a moment ago itself: what its predecessor had is what it would get.
        return replace(alias.kept[-1], version=version, until_unix_s=until)
    source = WantSource.ADMIN if want.source is WantSource.ADMIN else WantSource.MISS
    return Kept(version, until, want.replicas, source)


def _held(alias: Alias, version: int, standing: Standing, now: float) -> Want | None:
    """The want of a version that is left, while it is kept."""
    count = _count(version, standing)
    key = VersionKey(alias.model, version)
    return Want(key, count, False, WantSource.ALIAS, now) if count else None


def _released(alias: Alias, standing: Standing, now: float) -> Step:
    """Lets go what was kept long enough. With the last of it the targets get the wants that it had:
    until then as many replicas of them stay as it had, however idle they are.
    """
    over = [kept for kept in alias.kept if kept.until_unix_s <= now]
    left = tuple(kept for kept in alias.kept if kept.until_unix_s > now)
    still = replace(alias, kept=left).versions | standing.named
    wants, drop = list[Want](), list[VersionKey]()
    for kept in over:
        want = standing.wants.get(kept.version)
        if want is None or want.source is not WantSource.ALIAS:
            continue
        if kept.version in standing.served:
            wants.append(_as_before(want, kept))
        elif kept.version not in still and kept.version in standing.in_use:
            wants.append(replace(want, replicas=1, source=WantSource.MISS))
        elif kept.version not in still:
            drop.append(want.key)
    if not left:
        wants += _settled(alias, standing, over[-1] if over else None)
    # A hot standby would be loaded again at once.
    return Step(
        replace(alias, kept=left), WantChanges(tuple(wants), tuple(drop), end_standby=tuple(drop))
    )


def _settled(alias: Alias, standing: Standing, before: Kept | None) -> tuple[Want, ...]:
    """The wants of the targets as they stay, once nothing is kept any more; `before`: what was."""
    own = [standing.wants.get(target.version) for target in alias.targets]
    asked = any(want is not None and want.source is WantSource.ADMIN for want in own)
    return tuple(
        _as_before(want, before or Kept(0, 0.0, want.replicas, WantSource.ADMIN if asked else ""))
        for want in own
        if want is not None
        and want.source is WantSource.ALIAS
        and want.key.number not in standing.named
    )


def _as_before(want: Want, before: Kept) -> Want:
    source = WantSource.ADMIN if before.source == WantSource.ADMIN else WantSource.MISS
    return replace(want, replicas=before.replicas or 1, source=source)


def given_up(alias: Alias, switch: Switch, why: str, standing: Standing, now: float) -> Step:
    """The end of a switch that does not move, with the reason for the history."""
    still = replace(alias, switch=None).versions | standing.named
    drop = [
        want.key
        for target in switch.targets
        if target.version not in still
        and (want := standing.wants.get(target.version)) is not None
        and want.source is WantSource.ALIAS
    ]
    return Step(_abandoned(alias, switch, why, now), WantChanges(drop=tuple(drop)))


def _abandoned(alias: Alias, switch: Switch, why: str, now: float) -> Alias:
    to = ", ".join(str(target.version) for target in switch.targets)
    change = AliasChange(
        now,
        ChangeKind.ABANDON,
        switch.by,
        f"to {to}: {why}",
        alias.targets,
        alias.targets,
        switch.request_id,
    )
    return replace(alias, switch=None).noted(change)


def _versions(targets: Targets) -> frozenset[int]:
    return frozenset(target.version for target in targets)
