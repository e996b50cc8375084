"""The verbs that change aliases, as `transactions` has the others."""

from dataclasses import replace

from control_plane.store import transactions
from control_plane.store.transaction import Transaction
from control_plane.types.desired import WantChanges
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.version import VersionKey
from yolopool.errors import AliasChanged, VersionNotFound


def put_alias(tx: Transaction, alias: Alias, expected: int, wants: WantChanges) -> Alias:
    old = _expected(tx, alias.key, expected)
    known = old.versions if old is not None else frozenset()
    new = [VersionKey(alias.model, number) for number in sorted(alias.versions - known)]
    tx.expect(versions=new)
    for key in new:
        if tx.version(key) is None:
            raise VersionNotFound(f"{key} does not exist: {alias.key} can't name it")
    _change(tx, wants)
    return tx.put_alias(replace(alias, revision=expected + 1))


def drop_alias(tx: Transaction, key: AliasKey, expected: int, wants: WantChanges) -> None:
    _expected(tx, key, expected or -1)
    _change(tx, wants)
    tx.drop_alias(key)


def _change(tx: Transaction, wants: WantChanges) -> None:
    transactions.change_wants(tx, wants.put, wants.drop, wants.end_standby)


def _expected(tx: Transaction, key: AliasKey, expected: int) -> Alias | None:
    old = tx.alias(key)
    found = old.revision if old is not None else 0
    if found != expected:
        now = f"is at revision {found}" if old is not None else "does not exist"
        raise AliasChanged(f"{key} {now}: someone changed it; look at it and try again")
    return old
