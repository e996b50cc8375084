"""What a worker may say when it joins, and which sizes a version may have."""

import pytest

from control_plane.convert.validation import (
    check_metadata,
    check_renamed,
    check_settings,
    check_worker,
)
from yolopool.errors import InvalidOption, InvalidWorker
from yolopool.v1 import fleet_pb2, types_pb2
from yolopool.vocabulary import MAX_METADATA_BYTES


def joining(labels: int) -> fleet_pb2.Worker:
    """With so many labels of its user, and that of its compute class."""
    given = {f"label{number}": "x" for number in range(labels)}
    return fleet_pb2.Worker(
        id="w1",
        incarnation="i",
        address="127.0.0.1:5",
        device="cpu",
        device_kind="cpu",
        labels={**given, "compute-class": "amx"},
    )


def test_the_label_that_a_worker_adds_takes_none_of_its_users() -> None:
    assert check_worker(joining(64)) == joining(64)
    with pytest.raises(InvalidWorker, match="more than 65 labels"):
        check_worker(joining(65))


def rectangle(height: int, width: int, **more: object) -> types_pb2.VersionSettings:
    return types_pb2.VersionSettings(image_height=height, image_width=width, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 640])
def test_a_rectangle_may_say_its_longer_side(size: int) -> None:
    assert check_settings(rectangle(384, 640, image_size=size)) is not None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (rectangle(384, 0), "give both"),
        (rectangle(0, 640), "give both"),
        (rectangle(16, 640), "give both"),
        (rectangle(384, 5000), "give both"),
        (rectangle(384, 640, image_size=320), "the only size"),
        (rectangle(384, 640, image_sizes=[640]), "the only size"),
    ],
)
def test_half_a_rectangle_or_more_than_one_is_refused(
    settings: types_pb2.VersionSettings, says: str
) -> None:
    with pytest.raises(InvalidOption, match=says):
        check_settings(settings)


def test_texts_that_fit_are_kept() -> None:
    texts = {"a": "x" * (MAX_METADATA_BYTES - 1)}
    assert check_metadata(texts) == texts
    for wrong in ({"ab": texts["a"]}, {str(n): "x" for n in range(9)}, {"": "x"}, {"n" * 121: ""}):
        with pytest.raises(InvalidOption, match="metadata"):
            check_metadata(wrong)


def test_classes_are_named_in_one_way() -> None:
    check_renamed({3: "nut"}, [])
    check_renamed({}, ["bolt"])
    for renamed, names in (({3: "nut"}, ["bolt"]), ({3: ""}, []), ({3: "x" * 1001}, [])):
        with pytest.raises(InvalidOption, match="renamed_classes"):
            check_renamed(renamed, names)
