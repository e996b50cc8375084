"""Class names: as the model library reads them, and as many as there are classes."""

from typing import Any

import pytest

from importer import class_names
from importer.class_names import Said
from importer.refusal import ImportRefused


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({0: "a", 1: "b"}, ("a", "b")),
        ({1: "b", 0: "a"}, ("a", "b")),
        ({"0": "a", "1": "b"}, ("a", "b")),
        ({0: 0, 1: 1}, ("0", "1")),
        ([True, "x"], ("True", "x")),
        ({0: None, 1: 1.5}, ("None", "1.5")),
        (("a", "b"), ("a", "b")),
        ([], ()),
        (None, ()),
        ("ab", ()),
    ],
)
def test_names_are_texts_in_order(said: Any, names: tuple[str, ...]) -> None:
    assert class_names.of_file(said) == names


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({0: "a", 2: "c"}, "gaps (missing: 1)"),
        ({1: "a", 2: "b"}, "gaps (missing: 0)"),
        ({0: "a", "0": "b"}, "gaps"),
        ({-1: "a", 0: "b"}, "gaps (missing: 1)"),
        ({"a": 0, "b": 1}, "no numbers"),
        ({None: "a"}, "no numbers"),
        ({float("inf"): "a"}, "no numbers"),
    ],
)
def test_indices_that_are_none_are_refused(said: Any, words: str) -> None:
    with pytest.raises(ImportRefused, match="--names") as caught:
        class_names.of_file(said)
    assert words in caught.value.message


def test_what_the_user_says_wins() -> None:
    assert class_names.decide(Said(("x", "y")), ("a", "b", "c"), 2) == (("x", "y"), "")
    assert class_names.decide(Said(), ("a", "b"), 2) == (("a", "b"), "")


def test_names_beyond_the_classes_are_dropped_with_a_warning() -> None:
    names, warning = class_names.decide(Said(), tuple("abcd"), 2)
    assert names == ("a", "b")
    assert "4 class names for 2 classes" in warning


@pytest.mark.parametrize(
    ("said", "found", "words"),
    [
        ((), ("a",) * 79, "79 class names for the 80 classes"),
        ((), (), "0 class names for the 80 classes"),
        (("a",), ("b",) * 80, "1 class names were given, the model has 80 classes"),
        ((), ("a" * 1001,) * 80, "class 0 is longer than 1000"),
        ((), ("a", "b\ud800", *"c" * 78), "class 1 is no text"),
    ],
)
def test_counts_and_lengths_are_said(
    said: tuple[str, ...], found: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ImportRefused) as caught:
        class_names.decide(Said(said), found, 80)
    assert words in caught.value.message
    assert caught.value.reason == "ARTIFACT_INVALID"
    caught.value.message.encode()


def test_some_are_renamed_by_their_id() -> None:
    said = Said(renamed={0: "bolt", 2: "nut"})
    assert class_names.decide(said, ("a", "b", "c", "beyond"), 3)[0] == ("bolt", "b", "nut")
    # As the order of an import has it, whose keys are texts.
    assert class_names.of_order({"class_names": [], "renamed": {"0": "bolt", "2": "nut"}}) == said


def test_a_class_that_is_not_there_can_not_be_renamed() -> None:
    for renamed in ({3: "x"}, {0: "a", 7: "x"}):
        with pytest.raises(ImportRefused, match=r"the model has 3 classes, 0 to 2, and no class"):
            class_names.decide(Said(renamed=renamed), ("a", "b", "c", "beyond"), 3)
