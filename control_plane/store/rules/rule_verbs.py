"""The verbs that change rules of models and validations, as `transactions` has the others."""

from collections.abc import Callable
from dataclasses import replace

from control_plane.store.transaction import Transaction
from control_plane.types.policy import ModelRule, Validation
from control_plane.types.version import ModelVersion, VersionKey


def change_rule(
    tx: Transaction, pattern: str, change: Callable[[ModelRule], ModelRule]
) -> ModelRule:
    old = tx.rule(pattern)
    new = change(old if old is not None else ModelRule(pattern))
    if new.says_nothing:
        if old is not None:
            tx.drop_rule(pattern)
    elif new != old:
        tx.put_rule(new)
    return new


def note_validation(tx: Transaction, key: VersionKey, found: Validation) -> ModelVersion | None:
    version = tx.version(key)
    if version is None or version.validation == found:
        return version
    return tx.put_version(replace(version, validation=found))
