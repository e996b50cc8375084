"""The verbs that change aliases, as `transactions` has the others."""

from collections.abc import Sequence
from dataclasses import replace

from control_plane.store import transactions
from control_plane.store.transaction import Transaction
from control_plane.types.desired import Want
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.version import VersionKey
from yolopool.errors import AliasChanged, VersionNotFound


def put_alias(
    tx: Transaction,
    alias: Alias,
    expected: int,
    put: Sequence[Want],
    drop: Sequence[VersionKey],
) -> Alias:
    old = _expected(tx, alias.key, expected)
    known = old.versions if old is not None else frozenset()
    new = [VersionKey(alias.model, number) for number in sorted(alias.versions - known)]
    tx.expect(versions=new)
    for key in new:
        if tx.version(key) is None:
            raise VersionNotFound(f"{key} does not exist: {alias.key} can't name it")
    transactions.change_wants(tx, put, drop, ())
    return tx.put_alias(replace(alias, revision=expected + 1))


def drop_alias(tx: Transaction, key: AliasKey, expected: int) -> None:
    _expected(tx, key, expected or -1)
    tx.drop_alias(key)


def _expected(tx: Transaction, key: AliasKey, expected: int) -> Alias | None:
    old = tx.aliases().get(key)
    found = old.revision if old is not None else 0
    if found != expected:
        now = f"is at revision {found}" if old is not None else "does not exist"
        raise AliasChanged(f"{key} {now}: someone changed it; look at it and try again")
    return old
