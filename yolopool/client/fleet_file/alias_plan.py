"""What becomes of the aliases of a fleet file. Pure.

`newest` among the targets is the model's highest version that did not fail: also one that this
application registers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from yolopool.client.fleet_file.declared import NEWEST, Alias, Fleet
from yolopool.client.fleet_file.present import Present, PresentVersion
from yolopool.client.rollout import alias_records


@dataclass(frozen=True, slots=True)
class SetAlias:
    """`before` None: it is new. `targets` None: one of them is not registered yet."""

    before: alias_records.Alias | None
    after: Alias
    targets: Mapping[int, int] | None

    @property
    def words(self) -> str:
        now = _said(self.after.targets if self.targets is None else self.targets)
        if self.before is None:
            return now
        meant = _said(self.before.targets)
        keeps = f", keep_s {self.before.keep_s:g} -> {self.after.keep_s:g}"
        return f"{meant} -> {now}{'' if self.before.keep_s == self.after.keep_s else keeps}"


@dataclass(frozen=True, slots=True)
class DeleteAlias:
    name: str
    revision: int


AliasStep = SetAlias | DeleteAlias


def alias_steps(
    fleet: Fleet, versions: Sequence[PresentVersion], present: Present, new: frozenset[str]
) -> Iterator[AliasStep]:
    """`versions`: all of the pool; `new`: the models of which a version is registered."""
    if fleet.aliases is None:
        return
    there = {one.name: one for one in present.aliases or () if not one.family}
    for declared in fleet.aliases:
        model = declared.model
        targets = None
        if NEWEST not in declared.targets or model not in new:
            targets = resolved(declared, versions)
        before = there.get(declared.name)
        stable = present.rolling.get(declared.name)
        if before is None or targets is None or _differs(before, stable, targets, declared.keep_s):
            yield SetAlias(before, declared, targets)
    named = {one.name for one in fleet.aliases}
    for name in sorted(there.keys() - named):
        yield DeleteAlias(name, there[name].revision)


def _differs(
    there: alias_records.Alias, stable: int | None, targets: Mapping[int, int], keep_s: float
) -> bool:
    return (meant(there, stable), there.keep_s) != (dict(targets), keep_s)


def meant(there: alias_records.Alias, stable: int | None) -> dict[int, int]:
    """What an alias is to mean as things stand: a switch in progress was ordered already, and a
    rollout, whose stable version is given, has yet to prove its candidate.
    """
    if stable is not None:
        return {stable: 1000}
    return dict(there.switch.targets if there.switch is not None else there.targets)


def resolved(alias: Alias, versions: Sequence[PresentVersion]) -> dict[int, int] | None:
    """The targets by number; None: no version is there that could be the newest."""
    numbers = [one.number for one in versions if one.name == alias.model and one.state != "FAILED"]
    found: dict[int, int] = {}
    for word, weight in alias.targets.items():
        if word == NEWEST and not numbers:
            return None
        number = max(numbers) if word == NEWEST else int(word)
        found[number] = found.get(number, 0) + weight
    return found


def _said(targets: Mapping[int, int] | Mapping[str, int]) -> str:
    if len(targets) == 1:
        return f"@{next(iter(targets))}"
    return ", ".join(f"@{number} {weight / 10:g} %" for number, weight in targets.items())
