"""Which versions a caller asks to see."""

from dataclasses import replace

import pytest

from control_plane.types.search.version_filter import VersionFilter
from control_plane.types.version import (
    ModelVersion,
    Pack,
    ServingSpec,
    VersionKey,
    VersionSettings,
    VersionState,
)
from yolopool.labels import parse_selector

PACK = Pack(
    "d" * 64,
    "yolo11n-seg",
    "segment",
    ("bolt", "nut"),
    1,
    1,
    1,
    training={"data": "sets/bolts.yaml"},
)
READY = ModelVersion(
    VersionKey("a", 1),
    VersionState.READY,
    "abc" + "0" * 61,
    VersionSettings(),
    1.0,
    pack=PACK,
    given=ServingSpec(labels={"line": "7"}),
)
UPLOADED = replace(READY, state=VersionState.UPLOADED, pack=None)


@pytest.mark.parametrize(
    ("asked", "ready", "uploaded"),
    [
        (VersionFilter(), True, True),
        (VersionFilter(parse_selector("line=7")), True, True),
        (VersionFilter(parse_selector("line!=7")), False, False),
        (VersionFilter(task="segment"), True, False),
        (VersionFilter(task="detect"), False, False),
        (VersionFilter(class_names=("nut",)), True, False),
        (VersionFilter(class_names=("nut", "screw")), False, False),
        (VersionFilter(artifact="abc"), True, True),
        (VersionFilter(artifact="ddd"), True, False),
        (VersionFilter(artifact="bc"), False, False),
        (VersionFilter(dataset="bolts.yaml"), True, False),
        (VersionFilter(dataset="sets/bolts.yaml"), True, False),
        (VersionFilter(dataset="bolts"), False, False),
        (
            VersionFilter(parse_selector("line"), "segment", ("bolt",), "abc", "bolts.yaml"),
            True,
            False,
        ),
        (VersionFilter(parse_selector("!line"), "segment", ("bolt",), "abc"), False, False),
    ],
)
def test_takes(asked: VersionFilter, ready: bool, uploaded: bool) -> None:
    assert (asked.takes(READY), asked.takes(UPLOADED)) == (ready, uploaded)
