"""Model names and references, with the inputs a door must refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolopool.errors import InvalidModelName, InvalidModelReference, InvalidOption
from yolopool.names import ModelRef, check_name, parse_class_names, parse_ref


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("shapes", ModelRef("shapes")),
        ("team/shapes", ModelRef("team/shapes")),
        ("team-a/yolo11n.v2", ModelRef("team-a/yolo11n.v2")),
        ("shapes@3", ModelRef("shapes", version=3)),
        ("team/shapes:stable", ModelRef("team/shapes", alias="stable")),
    ],
)
def test_references(text: str, ref: ModelRef) -> None:
    assert parse_ref(text) == ref
    assert str(ref) == text


@pytest.mark.parametrize(
    "text",
    ["", "Shapes", "a/b/c", "-a", "a-", "a b", "a@", "a@0", "a@01", "a@x", "a:", "a@1:b", "../a",
     "a/", "/a", "a\n", "a" * 64, "a@9999999999", "ä"],
)  # fmt: skip
def test_refused_references(text: str) -> None:
    with pytest.raises(InvalidModelReference, match="a name is"):
        parse_ref(text)


def test_a_name_is_not_a_reference() -> None:
    assert check_name("team/shapes") == "team/shapes"
    with pytest.raises(InvalidModelName):
        check_name("shapes@1")


@given(st.text(max_size=80))
def test_whatever_parses_prints_back(text: str) -> None:
    try:
        ref = parse_ref(text)
    except InvalidModelReference:
        return
    assert parse_ref(str(ref)) == ref
    assert str(ref) == text


@pytest.mark.parametrize(
    ("text", "names", "renamed"),
    [
        ("", (), {}),
        ("bolt, nut,", ("bolt", "nut"), {}),
        ("0=bolt, 3 = hex nut", (), {0: "bolt", 3: "hex nut"}),
        ("a=b,c", ("a=b", "c"), {}),
        ("2=a=b", (), {2: "a=b"}),
    ],
)
def test_class_names(text: str, names: tuple[str, ...], renamed: dict[int, str]) -> None:
    assert parse_class_names(text) == (names, renamed)


@pytest.mark.parametrize("text", ["0=bolt,nut", "0=a,0=b", "1="])
def test_class_names_that_say_two_things(text: str) -> None:
    with pytest.raises(InvalidOption, match="0=bolt,3=nut"):
        parse_class_names(text)
