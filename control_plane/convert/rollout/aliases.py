"""Aliases: proto to types and back, with the checks of their messages."""

from collections.abc import Iterable

from control_plane.convert.rollout.families import family_out
from control_plane.types.rollout.alias import (
    WHOLE,
    Alias,
    AliasChange,
    AliasKey,
    ChangeKind,
    Target,
    Targets,
)
from yolopool.errors import InvalidModelReference, InvalidOption
from yolopool.names import check_name, is_build, parse_ref
from yolopool.v1 import aliases_pb2

MAX_TARGETS = 16
MAX_KEEP_S, MAX_WITHIN_S = 7 * 86_400.0, 86_400.0
MAX_WHY_CHARS = 500
_KINDS = {
    kind: aliases_pb2.AliasChangeKind.Value(f"ALIAS_CHANGE_KIND_{kind}") for kind in ChangeKind
}


def alias_key_in(text: str) -> AliasKey:
    """Reads model:name. Raises InvalidModelReference."""
    ref = parse_ref(text)
    if ref.alias is None or is_build(ref.name):
        raise InvalidModelReference(
            f"{text[:80]!r} names no alias: give model:name, such as {ref.name}:stable"
        )
    return AliasKey(ref.name, ref.alias)


def alias_name_in(model: str, name: str) -> AliasKey:
    """The alias of this name of a model. Raises InvalidModelReference, InvalidModelName."""
    return alias_key_in(f"{check_name(model)}:{name.removeprefix(f'{model}:')}")


def targets_in(messages: Iterable[aliases_pb2.AliasTarget]) -> Targets:
    """Raises InvalidOption."""
    targets = tuple(Target(one.version, one.weight) for one in messages)
    if not targets or len(targets) > MAX_TARGETS:
        raise InvalidOption(f"an alias has 1 to {MAX_TARGETS} targets, not {len(targets)}")
    if len({target.version for target in targets}) < len(targets):
        raise InvalidOption("targets name a version twice: name it once, with all of its weight")
    if not all(target.version and target.weight for target in targets):
        raise InvalidOption("each target has a version and a weight of at least 1")
    total = sum(target.weight for target in targets)
    if total != WHOLE:
        raise InvalidOption(f"the weights sum to {total}: of a thousand requests, {WHOLE}")
    return targets


def keep_in(keep_s: float) -> float:
    # Written so that NaN is rejected too.
    if not 0.0 <= keep_s <= MAX_KEEP_S:
        raise InvalidOption(f"keep_s is {keep_s:g}: give 0 to {MAX_KEEP_S:g}")
    return keep_s


def within_in(within_s: float, default_s: float) -> float:
    if not 0.0 <= within_s <= MAX_WITHIN_S:
        raise InvalidOption(
            f"within_s is {within_s:g}: give 0 (for {default_s:g}) to {MAX_WITHIN_S:g}"
        )
    return within_s or default_s


def why_in(why: str) -> str:
    if len(why) > MAX_WHY_CHARS or not all(char.isprintable() for char in why):
        raise InvalidOption(f"why: at most {MAX_WHY_CHARS} printable characters")
    return why


def alias_out(alias: Alias, waits_for: str = "", *, with_history: bool = True) -> aliases_pb2.Alias:
    """`waits_for`: what its switch waits for."""
    answer = aliases_pb2.Alias(
        model=alias.model,
        name=alias.name,
        targets=_targets_out(alias.targets),
        keep_s=alias.keep_s,
        changed_unix_s=alias.changed_unix_s,
        revision=alias.revision,
        kept=[
            aliases_pb2.KeptVersion(version=one.version, until_unix_s=one.until_unix_s)
            for one in alias.kept
        ],
        previous=_targets_out(alias.previous),
        history=[_change_out(change) for change in alias.history] if with_history else (),
        family=family_out(alias.family) if alias.family is not None else None,
    )
    if alias.switch is not None:
        switch = alias.switch
        answer.switch.MergeFrom(
            aliases_pb2.AliasSwitch(
                targets=_targets_out(switch.targets),
                kind=_kind_out(switch.kind),
                by=switch.by,
                why=switch.why,
                since_unix_s=switch.since_unix_s,
                until_unix_s=switch.until_unix_s,
                waits_for=waits_for,
            )
        )
    return answer


def _targets_out(targets: Targets) -> list[aliases_pb2.AliasTarget]:
    return [aliases_pb2.AliasTarget(version=one.version, weight=one.weight) for one in targets]


def _change_out(change: AliasChange) -> aliases_pb2.AliasChange:
    return aliases_pb2.AliasChange(
        unix_s=change.at_unix_s,
        kind=_kind_out(change.kind),
        by=change.by,
        why=change.why,
        before=_targets_out(change.before),
        after=_targets_out(change.after),
    )


def _kind_out(kind: str) -> aliases_pb2.AliasChangeKind.ValueType:
    known = kind in ChangeKind.__members__
    return _KINDS[ChangeKind(kind)] if known else aliases_pb2.ALIAS_CHANGE_KIND_UNSPECIFIED
