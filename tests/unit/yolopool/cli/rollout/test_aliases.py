"""Spans and shares as people write them."""

import pytest

from yolopool.cli.rollout.aliases import in_words, span, weights
from yolopool.errors import InvalidOption


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2 d", 172_800)]
)
def test_a_span(text: str, seconds: float) -> None:
    assert span(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1", "1w", "1e9", "nan"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(InvalidOption):
        span(text)


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["4"], {4: 1000}),
        (["3=95", "4=5"], {3: 950, 4: 50}),
        (["3=99.9%", "4=0.1%"], {3: 999, 4: 1}),
        (["4=100"], {4: 1000}),
    ],
)
def test_shares(texts: list[str], found: dict[int, int]) -> None:
    assert weights(texts) == found


@pytest.mark.parametrize(
    "texts",
    [["3=95"], ["3=95", "4=6"], ["3", "4"], ["3=50", "3=50"], ["v3"], ["3=95", "4"], ["3="]],
)
def test_what_is_no_share(texts: list[str]) -> None:
    with pytest.raises(InvalidOption):
        weights(texts)


def test_targets_in_words() -> None:
    assert in_words({3: 1000}) == "3"
    assert in_words({3: 999, 4: 1}) == "3 99.9 % + 4 0.1 %"
