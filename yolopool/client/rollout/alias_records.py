"""Aliases: their records for callers, and the calls about them."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yolopool.client.calls import READ_TIMEOUT_S, Call
from yolopool.errors import InvalidOption
from yolopool.v1 import aliases_pb2

# Of a switch, whose targets must be loaded first.
SWITCH_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class AliasChange:
    """`kind`: SET, PROMOTE, STEP (other weights on the way of one promotion), ROLLBACK or ABANDON
    (a switch was given up: nothing moved). `before`, `after`: versions and weights in per mille.
    """

    unix_s: float
    kind: str
    by: str
    why: str
    before: Mapping[int, int]
    after: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class AliasSwitch:
    """A move in progress, which is given up at `until_unix_s`; `waits_for`: for people."""

    targets: Mapping[int, int]
    kind: str
    by: str
    why: str
    since_unix_s: float
    until_unix_s: float
    waits_for: str


@dataclass(frozen=True, slots=True)
class Alias:
    """`name`: model:name. `targets`: of a thousand requests how many are of which version. `kept`:
    versions that it left, and until when (Unix time) they stay loaded. `previous`: where a rollback
    goes. `history`: the newest last; empty in a list of aliases. `family`: the models of which it
    is one at each request; it has no targets then.
    """

    name: str
    targets: Mapping[int, int]
    keep_s: float
    changed_unix_s: float
    revision: int
    switch: AliasSwitch | None
    kept: Mapping[int, float]
    previous: Mapping[int, int]
    history: tuple[AliasChange, ...]
    family: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """The version that it means, of several the one with the most weight; 0: it is a family."""
        return max(self.targets, key=self.targets.__getitem__, default=0)


def aliases(prefix: str = "") -> Call[tuple[Alias, ...]]:
    """All aliases of models whose name begins with `prefix`, sorted, without their histories."""
    request = aliases_pb2.ListAliasesRequest(name_prefix=prefix)
    return Call(
        "aliases",
        "ListAliases",
        request,
        READ_TIMEOUT_S,
        lambda reply: tuple(map(_alias, reply.aliases)),
    )


def alias(alias: str) -> Call[Alias]:
    """One alias, model:name, with its history."""
    return Call(
        "aliases", "GetAlias", aliases_pb2.GetAliasRequest(alias=alias), READ_TIMEOUT_S, _of
    )


def set_alias(
    alias: str,
    targets: Mapping[int, int] | int,
    *,
    keep_s: float | None = None,
    expected_revision: int | None = None,
    within_s: float = 0.0,
    force: bool = False,
    ungated: bool = False,
    why: str = "",
    wait: bool = True,
    timeout_s: float = SWITCH_TIMEOUT_S,
) -> Call[Alias]:
    """Makes an alias, model:name, or says what it means from now on: a version, or versions with
    their weights in per mille ({3: 950, 4: 50}).

    One that is there is switched without a gap: the versions are loaded first, as often as those
    that it means now; with `force` it moves at once. Those that it leaves stay loaded for `keep_s`
    (600 of a new alias). `expected_revision`: the one that you looked at; another raises
    AliasChanged. With wait, returns when it has moved; SwitchAbandoned says why it did not, at the
    latest after `within_s` (0: 600). A version that the model's gate does not let through raises
    ValidationFailed or ValidationPending, unless it is `ungated`.
    """
    weights = {targets: 1000} if isinstance(targets, int) else targets
    request = aliases_pb2.SetAliasRequest(
        alias=alias,
        targets=[
            aliases_pb2.AliasTarget(version=version, weight=weight)
            for version, weight in weights.items()
        ],
        keep_s=keep_s,
        expected_revision=expected_revision,
        ungated=ungated,
        **_order(within_s, force, why, wait),
    )
    return Call("aliases", "SetAlias", request, timeout_s, _of)


def promote(
    model: str,
    to: str,
    *,
    expected_version: int | None = None,
    keep_s: float | None = None,
    within_s: float = 0.0,
    force: bool = False,
    ungated: bool = False,
    why: str = "",
    wait: bool = True,
    timeout_s: float = SWITCH_TIMEOUT_S,
) -> Call[Alias]:
    """Moves an alias of a model (`to`: its name alone, such as "stable") to one version,
    name@version, as `set_alias` does. `expected_version`: what the alias means now, 0 if there is
    none; another raises AliasChanged.
    """
    request = aliases_pb2.PromoteModelRequest(
        model=model,
        alias=to,
        expected_version=expected_version,
        keep_s=keep_s,
        ungated=ungated,
        **_order(within_s, force, why, wait),
    )
    return Call("aliases", "PromoteModel", request, timeout_s, _of)


def rollback(
    alias: str,
    *,
    expected_revision: int | None = None,
    within_s: float = 0.0,
    force: bool = False,
    why: str = "",
    wait: bool = True,
    timeout_s: float = SWITCH_TIMEOUT_S,
) -> Call[Alias]:
    """Moves an alias, model:name, back to what it meant before; at once while that is still loaded.
    A switch in progress is given up instead. Raises NothingToRollBack.
    """
    request = aliases_pb2.RollbackAliasRequest(
        alias=alias, expected_revision=expected_revision, **_order(within_s, force, why, wait)
    )
    return Call("aliases", "RollbackAlias", request, timeout_s, _of)


def delete_alias(alias: str, *, expected_revision: int | None = None) -> Call[None]:
    """Removes an alias; its versions stay."""
    request = aliases_pb2.DeleteAliasRequest(alias=alias, expected_revision=expected_revision)
    return Call("aliases", "DeleteAlias", request, READ_TIMEOUT_S, lambda reply: None)


def _order(within_s: float, force: bool, why: str, wait: bool) -> dict[str, Any]:
    """What orders have in common. The id makes it safe to send one again."""
    if not within_s >= 0.0:
        raise InvalidOption(f"within_s is {within_s}: give seconds, or 0 for 600")
    request_id = uuid.uuid4().hex
    return {
        "within_s": within_s,
        "force": force,
        "why": why,
        "wait": wait,
        "request_id": request_id,
    }


def _of(reply: Any) -> Alias:
    return _alias(reply.alias)


def _alias(message: aliases_pb2.Alias) -> Alias:
    switch = None
    if message.HasField("switch"):
        switch = AliasSwitch(
            _weights(message.switch.targets),
            _kind(message.switch.kind),
            message.switch.by,
            message.switch.why,
            message.switch.since_unix_s,
            message.switch.until_unix_s,
            message.switch.waits_for,
        )
    return Alias(
        f"{message.model}:{message.name}",
        _weights(message.targets),
        message.keep_s,
        message.changed_unix_s,
        message.revision,
        switch,
        {one.version: one.until_unix_s for one in message.kept},
        _weights(message.previous),
        tuple(
            AliasChange(
                one.unix_s,
                _kind(one.kind),
                one.by,
                one.why,
                _weights(one.before),
                _weights(one.after),
            )
            for one in message.history
        ),
        tuple(member.model for member in message.family.members),
    )


def _weights(targets: Sequence[aliases_pb2.AliasTarget]) -> dict[int, int]:
    return {target.version: target.weight for target in targets}


def _kind(number: int) -> str:
    known = number in aliases_pb2.AliasChangeKind.values()
    name = aliases_pb2.AliasChangeKind.Name(number) if known else "UNSPECIFIED"  # type: ignore[arg-type]
    return name.removeprefix("ALIAS_CHANGE_KIND_")
