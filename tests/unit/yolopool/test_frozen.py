"""A class that is frozen to the type checker is a value like a frozen dataclass."""

from dataclasses import dataclass, fields, replace

import pytest

from yolopool.frozen import frozen


@frozen
class Quick:
    """Made often."""

    name: str
    count: int = 0


@dataclass(frozen=True, slots=True)
class Usual:
    """The same, frozen at run time."""

    name: str
    count: int = 0


def test_it_is_the_value_that_a_frozen_dataclass_is() -> None:
    one, other = Quick("a", 1), Usual("a", 1)
    assert repr(one) == repr(other).replace("Usual", "Quick")
    assert [field.name for field in fields(one)] == [field.name for field in fields(other)]
    assert hash(one) == hash(other)
    assert one == Quick("a", 1) != replace(one, count=2)
    assert {one, replace(one)} == {one}


def test_it_has_no_other_fields() -> None:
    with pytest.raises(AttributeError):
        Quick("a").other = 1  # type: ignore[attr-defined]


def test_only_the_type_checker_freezes_it() -> None:
    one = Quick("a")
    # mypy reports an ignore that it does not need, so this line also shows that it refuses.
    one.count = 1  # type: ignore[misc]
    assert one == Quick("a", 1)
