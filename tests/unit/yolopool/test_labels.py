"""Labels, and selectors of them as kubectl has them."""

import pytest

from yolopool.errors import InvalidOption
from yolopool.labels import (
    MAX_LABELS,
    check_label_name,
    check_labels,
    parse_changes,
    parse_selector,
    selects,
)

LABELS = {"line": "7", "site": "berlin", "gpu": ""}


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ("", True),
        ("line=7", True),
        ("line==7", True),
        ("line=8", False),
        ("line!=8", True),
        ("line!=7", False),
        ("colour!=red", True),
        ("gpu", True),
        ("gpu=", True),
        ("trial", False),
        ("!trial", True),
        ("!gpu", False),
        (" line = 7 , site=berlin ", True),
        ("line=7,site=paris", False),
        ("example.org/owner", False),
    ],
)
def test_a_selector_takes(selector: str, taken: bool) -> None:
    assert selects(parse_selector(selector), LABELS) is taken


@pytest.mark.parametrize(
    "text", [",", "line=7,", "=7", "!", "line=7=8", "-a", "a b", "l=é", "a" * 64]
)
def test_no_selector(text: str) -> None:
    with pytest.raises(InvalidOption, match="selects no labels"):
        parse_selector(text)


def test_changes_are_read_as_kubectl_has_them() -> None:
    assert parse_changes(["line=7", "site=", "old-"]) == ({"line": "7", "site": ""}, ("old",))
    with pytest.raises(InvalidOption, match="both set and dropped"):
        parse_changes(["line=7", "line-"])
    with pytest.raises(InvalidOption, match="NAME=VALUE"):
        parse_changes(["line"])


def test_labels_have_a_form_and_a_number() -> None:
    assert check_labels(LABELS) == LABELS
    assert check_label_name("a.b/c_d-e") == "a.b/c_d-e"
    for wrong in ({"": "7"}, {"a": "b c"}, {"a": "-"}, {"a b": ""}, {"a": "x" * 64}):
        with pytest.raises(InvalidOption, match="is no label"):
            check_labels(wrong)
    with pytest.raises(InvalidOption, match=f"at most {MAX_LABELS}"):
        check_labels({f"l{number}": "" for number in range(MAX_LABELS + 1)})
    with pytest.raises(InvalidOption, match="no name"):
        check_label_name("a=b")
