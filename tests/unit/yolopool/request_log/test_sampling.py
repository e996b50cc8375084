"""Which requests have a line, by rules and by their ids."""

import pytest

from yolopool.errors import InvalidOption
from yolopool.request_log.sampling import is_taken, parse

RULES = parse("errors=1, slow:500ms=0.5, line-7/*=0.1, *=0")


@pytest.mark.parametrize(
    ("model", "is_error", "total_ms", "share"),
    [
        ("line-7/a", True, 1.0, 1.0),
        ("line-7/a", False, 500.0, 0.5),
        ("line-7/a", False, 499.0, 0.1),
        ("line-8/a", False, 1.0, 0.0),
    ],
)
def test_the_first_rule_that_fits_counts(
    model: str, is_error: bool, total_ms: float, share: float
) -> None:
    assert RULES.share(model, is_error, total_ms) == share


def test_without_a_rule_that_fits_there_is_a_line() -> None:
    assert parse("").share("a", False, 1.0) == 1.0
    assert parse("b=0").share("a", False, 1.0) == 1.0


def test_a_share_is_about_as_large_as_it_says_and_the_same_everywhere() -> None:
    ids = [f"request-{number}" for number in range(4000)]
    taken = [one for one in ids if is_taken(one, 0.1)]
    assert 320 < len(taken) < 480
    assert taken == [one for one in ids if is_taken(one, 0.1)]
    assert set(taken) <= {one for one in ids if is_taken(one, 0.2)}
    assert not any(is_taken(one, 0.0) for one in ids)
    assert all(is_taken(one, 1.0) for one in ids)


@pytest.mark.parametrize(
    "text", ["a", "a=2", "=1", "a=-1", "a=b", "a=nan", "slow:500ms", "," * 3 + "x"]
)
def test_what_is_no_rule_is_said(text: str) -> None:
    with pytest.raises(InvalidOption, match="is no rule of sampling"):
        parse(text)


def test_rules_are_bounded() -> None:
    with pytest.raises(InvalidOption, match="at most 64 rules"):
        parse(",".join(["a=1"] * 65))
