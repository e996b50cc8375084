"""What refers to versions that are to be deleted. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from control_plane.types.desired import Desired
from control_plane.types.rollout.alias import naming
from control_plane.types.schedule import Changeover
from control_plane.types.version import VersionKey, builds_of
from yolopool.errors import InvalidModelReference, ModelReferenced
from yolopool.names import base_name, parse_ref


@dataclass(frozen=True, slots=True)
class References:
    """In words, by kind. `changed`: the schedules, by name, without the versions; None: nothing is
    left of it.
    """

    aliases: tuple[str, ...]
    pins: tuple[str, ...]
    changed: Mapping[str, Changeover | None]

    def check(self, force: bool) -> None:
        """Raises ModelReferenced for what a deletion may not go through."""
        said = [f"alias {name}" for name in self.aliases]
        if not force:
            said += [f"schedule {name}" for name in self.changed]
            said += [f"a pin of {name}" for name in self.pins]
        if not said:
            return
        todo = "move or delete the alias first"
        if not self.aliases:
            todo = "end that first, or force the deletion"
        more = " and others" if len(said) > 10 else ""
        raise ModelReferenced(
            f"it is needed by {', '.join(said[:10])}{more}: {todo}",
            details={"references": ", ".join(said)[:1000]},
        )


def references(desired: Desired, keys: Collection[VersionKey]) -> References:
    """What refers to any of these versions, or to a build of one. A schedule does that loads it, by
    its version, or by its model if no version of that is left; one that only releases it does not.
    """
    own = set(keys)
    remaining = {key.model for key in desired.versions if key not in own}
    with_builds = [one for key in keys for one in (key, *builds_of(key))]
    wants = [desired.want(key) for key in with_builds if key in desired.versions]

    def is_named(reference: str) -> bool:
        try:
            ref = parse_ref(reference)
        except InvalidModelReference:
            return False
        model = base_name(ref.name)
        if ref.version is not None:
            return VersionKey(model, ref.version) in own
        return ref.alias is None and model not in remaining and any(k.model == model for k in own)

    schedules = desired.schedules.items()
    changes = {name: one.change.without(is_named) for name, one in sorted(schedules)}
    return References(
        tuple(sorted({str(alias) for key in own for alias in naming(desired.aliases, key)})),
        tuple(sorted(str(want.key) for want in wants if want is not None and want.pinned)),
        {
            name: change if change.prepare or change.release else None
            for name, change in changes.items()
            if change.prepare != desired.schedules[name].change.prepare
        },
    )
