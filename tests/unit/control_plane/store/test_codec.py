"""Records of the store: what older releases wrote is read as it was meant."""

import json
from dataclasses import replace

from control_plane.store import codec
from control_plane.types.footprint import FootprintKey
from control_plane.types.version import Drift, ModelVersion, ServedBuild
from tests.unit.control_plane.fleets import version

DIGEST = "d" * 64


def test_a_footprints_key_is_written_and_read_again() -> None:
    key = FootprintKey(DIGEST, "openvino/int8", "cpu", "avx2")
    # An older release reads three words, and fails in its whole read on any other number.
    assert codec.encode_footprint_key(key) == f"{DIGEST} openvino/int8 cpu/avx2"
    assert codec.decode_footprint_key(codec.encode_footprint_key(key)) == key


def test_a_footprints_key_of_an_older_release_is_of_no_known_class() -> None:
    old = FootprintKey(DIGEST, "torch/fp32", "cpu")
    assert codec.decode_footprint_key(f"{DIGEST} torch/fp32 cpu") == old
    assert codec.encode_footprint_key(old) == f"{DIGEST} torch/fp32 cpu"


def test_checks_of_a_build_are_written_and_read_again() -> None:
    served = ServedBuild("openvino", "int8", unchecked=True)
    for name in ("amx", "avx2"):
        served = served.compared(Drift(images=3, objects=9, matched=9, compute_class=name))
    one = version("a")
    one = replace(one, given=replace(one.given, served={"cpu": served}))
    assert codec.decode_version(codec.encode_version(one)) == one


def test_a_build_of_an_older_release_was_checked_on_no_known_class() -> None:
    served = ServedBuild("openvino", "int8", drift=Drift(images=3, objects=9, matched=9))
    one = version("a")
    one = replace(one, given=replace(one.given, served={"cpu": served}))
    raw = json.loads(codec.encode_version(one))
    written = raw["given"]["served"]["cpu"]
    del written["checks"], written["unchecked"], written["drift"]["compute_class"]
    read = codec.decode_version(json.dumps(raw))
    assert read == one
    assert not read.given.served["cpu"].serves_on("amx")


def test_what_is_said_of_classes_and_training_is_written_and_read_again() -> None:
    one = version("a")
    assert one.pack is not None
    given = replace(one.given, renamed={0: "bolt", 3: "nut"}, metadata={"args.yaml": "a: 1\n"})
    given = replace(given, signature="untrusted comment: ...", signer="F215A3597B6B3BC0")
    one = replace(one, given=given, pack=replace(one.pack, training={"epochs": "100"}))
    assert codec.decode_version(codec.encode_version(one)) == one


def test_an_older_release_wrote_none_of_it() -> None:
    one = version("a")
    raw = json.loads(codec.encode_version(one))
    del raw["given"]["renamed"], raw["given"]["metadata"], raw["pack"]["training"]
    del raw["given"]["signature"], raw["given"]["signer"]
    assert codec.decode_version(json.dumps(raw)) == one


def test_what_another_release_wrote_into_a_record_is_kept() -> None:
    """As far as its part of the record is: a pack is replaced whole, and a map says all it has."""
    one = version("a")
    raw = json.loads(codec.encode_version(one))
    raw["colour"] = raw["given"]["colour"] = raw["given"]["residency"]["colour"] = "blue"
    raw["settings"]["colour"] = raw["pack"]["colour"] = "blue"
    raw["given"]["metadata"] = {"args.yaml": "a: 1\n"}
    changed = replace(one, step="done", given=replace(one.given, metadata={}))
    kept = codec.keeping(ModelVersion, codec.encode_version(changed), json.dumps(raw))
    assert codec.decode_version(kept) == changed
    found = json.loads(kept)
    given = found["given"]
    assert [part["colour"] for part in (found, given, given["residency"], found["settings"])] == [
        "blue"
    ] * 4
    assert "colour" not in found["pack"]


def test_a_record_of_this_release_is_written_as_it_is() -> None:
    one = version("a")
    text, before = codec.encode_version(one), codec.encode_version(replace(one, step="before"))
    assert codec.keeping(ModelVersion, text, before) == text
