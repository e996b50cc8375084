"""The text format as protobuf writes it, and as people do."""

import contextlib
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from yolopool.migration.pbtxt import Entry, NotTextFormat, parse
from yolopool.v1 import model_pb2, types_pb2

WHOLE = st.integers(0, 2**32 - 1)
NAMES = st.text(max_size=12)


@st.composite
def versions(draw: st.DrawFn) -> model_pb2.ModelVersion:
    """Messages with every kind of field: words, numbers, lists, maps, messages and enums."""
    message = model_pb2.ModelVersion(
        reason=draw(NAMES),
        class_names=draw(st.lists(NAMES, max_size=3)),
        progress=draw(st.integers(-8, 8)) / 4,
        pinned=draw(st.booleans()),
        created_unix_s=draw(st.floats(allow_nan=False)),
        state=draw(st.sampled_from(model_pb2.VersionState.values())),
    )
    message.placement.labels.update(draw(st.dictionaries(NAMES, NAMES, max_size=2)))
    for kind in draw(st.lists(NAMES, max_size=2)):
        message.batching[kind].CopyFrom(
            types_pb2.Batching(preferred_sizes=draw(st.lists(WHOLE, max_size=3)))
        )
    return message


def read_by_protobuf(message: Any) -> list[tuple[str, Any]]:
    """Every value with its path, as protobuf's own reader has it."""
    found: list[tuple[str, Any]] = []

    def walk(part: Any, before: str) -> None:
        for field, value in part.ListFields():
            path = before + field.name
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                for key in sorted(value):
                    found.append((f"{path}.key", key))
                    inner = value[key]
                    if isinstance(inner, str):
                        found.append((f"{path}.value", inner))
                    else:
                        walk(inner, f"{path}.value.")
                continue
            for one in value if field.is_repeated else [value]:
                if field.message_type is not None:
                    walk(one, f"{path}.")
                elif field.enum_type is not None:
                    found.append((path, field.enum_type.values_by_number[one].name))
                else:
                    found.append((path, one))

    walk(message, "")
    return found


def leaves(entry: Entry) -> list[tuple[str, Any]]:
    if not isinstance(entry.value, tuple):
        return [(entry.path, entry.value)]
    return [leaf for field in entry.fields for leaf in leaves(field)]


@given(versions())
def test_what_protobuf_writes_is_read(message: model_pb2.ModelVersion) -> None:
    text = text_format.MessageToString(message)
    # An entry of a map with an empty value has no line of it.
    expected = [(path, value) for path, value in read_by_protobuf(message) if value != ""]
    assert [(path, value) for path, value in leaves(parse(text)) if value != ""] == expected


def test_as_people_write_it() -> None:
    root = parse(
        "# a comment\n"
        "name: 'a' \"b\"  # another\n"
        "input [ { dims: [ 3, -1, 0x10 ] }, { dims: 4 } ]\n"
        "policy: { latest { count: 2; }, }\n"
        "kind: KIND_GPU rate: 1.5e3 on: true\n"
    )
    assert leaves(root) == [
        ("name", "ab"), ("input.dims", 3), ("input.dims", -1), ("input.dims", 16),
        ("input.dims", 4), ("policy.latest.count", 2), ("kind", "KIND_GPU"), ("rate", 1500.0),
        ("on", True),
    ]  # fmt: skip
    assert [(field.name, field.line) for field in root.fields] == [
        ("name", 2), ("input", 3), ("input", 3), ("policy", 4), ("kind", 5), ("rate", 5), ("on", 5),
    ]  # fmt: skip
    assert len(root.all("input")) == 2
    assert root.one("nothing") is None


@pytest.mark.parametrize(
    "text",
    [
        "a {" * 3000,
        "a <" * 200 + ">" * 200,
        "a {",
        "a: ",
        "a b",
        "a: [1",
        "}",
        'a: "x',
        "a: {]",
        "a: <1>",
        "a: 1 b",
        "\x00",
        "[x]: 1",
    ],
)
def test_what_is_not_of_the_format(text: str) -> None:
    with pytest.raises(NotTextFormat, match=r"^\d:"):
        parse(f"{text}\n")


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(NotTextFormat):
        parse(text)
