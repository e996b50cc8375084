"""Members as they are written on the command line."""

import pytest

from yolopool.cli.rollout.families import members_of
from yolopool.errors import InvalidOption


def test_models_alone_are_sizes() -> None:
    assert members_of(["plates-n", "team/plates-s@3", "plates-m:stable"]) == [
        "plates-n",
        "team/plates-s@3",
        "plates-m:stable",
    ]


def test_with_times_they_are_parts_of_the_day() -> None:
    assert members_of(["06:00=plates", "22:00=plates-ir@2"]) == {
        "06:00": "plates",
        "22:00": "plates-ir@2",
    }


@pytest.mark.parametrize("texts", [["06:00=a", "b"], ["06:00=a", "06:00=b"], ["=a", "22:00=b"]])
def test_a_mixture_is_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidOption, match="when it begins"):
        members_of(texts)
