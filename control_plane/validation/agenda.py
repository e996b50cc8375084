"""Which version is evaluated next for the gate of its model. Pure."""

from collections.abc import Mapping, Sequence

from control_plane.types.desired import Desired
from control_plane.types.policy import Gate, GateState
from control_plane.types.version import ModelVersion, VersionKey, VersionState

# A version on the data of a gate.
Case = tuple[VersionKey, str]


def due(
    desired: Desired,
    models: Mapping[str, Sequence[ModelVersion]],
    not_before: Mapping[Case, float],
    now: float,
) -> tuple[ModelVersion, Gate] | None:
    """The version to evaluate now, and the gate: the newest of each model first, and of several
    models the one that waits longest. None: there is none, or each is backed off.
    """
    waiting = []
    for name, rule in desired.rules.items():
        gate = rule.gate
        if gate is None:
            continue
        # Newest first, as the catalogue has them.
        ready = [one for one in models.get(name, ()) if one.state is VersionState.READY]
        for place, version in enumerate(ready):
            case = (version.key, gate.data)
            is_pending = gate.state(version.validation) is GateState.PENDING
            if is_pending and not_before.get(case, 0.0) <= now:
                waiting.append((place, version.created_unix_s, version.key, version, gate))
    if not waiting:
        return None
    _, _, _, version, gate = min(waiting, key=lambda one: one[:3])
    return version, gate
