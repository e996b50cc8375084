"""Records of the store: what older releases wrote is read as it was meant."""

import json
from dataclasses import replace

import pytest

from control_plane.identity.access import RULES
from control_plane.store import codec
from control_plane.types.access.api_key import ApiKey, Joining, Role, SecretHash
from control_plane.types.access.tenant import Tenant
from control_plane.types.desired import Want, WantSource
from control_plane.types.footprint import FootprintKey
from control_plane.types.policy import Placement, Residency
from control_plane.types.version import Drift, ModelVersion, ServedBuild, VersionKey
from tests.unit.control_plane.fleets import version
from yolopool.vocabulary import Priority

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


def test_a_key_of_a_role_of_a_newer_release_is_kept_and_opens_nothing() -> None:
    joins = Joining(Role.WORKER, "w-1")
    key = ApiKey("id", "label", "", Role.ADMIN, ("*",), (SecretHash("s", "d"),), 1.0, joins=joins)
    raw = json.loads(codec.encode_api_key(key))
    raw["role"], raw["joins"]["role"] = "auditor", "gateway"
    read = codec.decode_api_key(json.dumps(raw))
    assert json.loads(codec.encode_api_key(read)) == raw
    revoked = read.revoked(5.0)
    assert json.loads(codec.encode_api_key(revoked)) == {**raw, "revoked_unix_s": 5.0}
    assert not any(read.role.allows(rule.role) for rule in RULES.values())
    assert not any(role.allows(read.role) for role in Role)
    assert not read.makes_keys(2.0)


def test_an_older_release_reads_a_join_token_as_a_key_that_opens_nothing() -> None:
    """It knows four roles beside, and fails in its whole read on any other."""
    joins, secrets = Joining(Role.WORKER, "", ("h",)), (SecretHash("s", "d"),)
    token = ApiKey("id", "join token", "", Role.JOIN, (), secrets, 1.0, 900.0, joins=joins)
    for one in (token, token.joined("w-1", ("h",), 5.0, 50.0)):
        raw = json.loads(codec.encode_api_key(one))
        assert (raw["role"], raw["secrets"]) == ("worker", [])
        assert codec.decode_api_key(json.dumps(raw)) == one


def test_an_older_release_wrote_keys_that_nobody_joined_with() -> None:
    key = ApiKey("id", "label", "", Role.ADMIN, ("*",), (SecretHash("s", "d"),), 1.0)
    raw = json.loads(codec.encode_api_key(key))
    del raw["joins"]
    assert codec.decode_api_key(json.dumps(raw)) == key


@pytest.mark.parametrize(
    ("kind", "record", "word"),
    [
        (ModelVersion, version("a"), ("state",)),
        (ModelVersion, version("a"), ("given", "residency", "mode")),
        (ModelVersion, version("a"), ("given", "placement", "priority")),
        (Want, Want(VersionKey("a", 1), 1, False, WantSource.MISS, 5.0), ("source",)),
        (Tenant, Tenant("a"), ("priority_ceiling",)),
    ],
    ids=lambda one: ".".join(one) if isinstance(one, tuple) else None,
)
def test_a_word_of_a_newer_release_is_read_and_kept(
    kind: type, record: object, word: tuple[str, ...]
) -> None:
    encode, decode = {
        ModelVersion: (codec.encode_version, codec.decode_version),
        Want: (codec.encode_want, codec.decode_want),
        Tenant: (codec.encode_tenant, codec.decode_tenant),
    }[kind]
    raw = json.loads(encode(record))  # type: ignore[operator] # by its kind
    part = raw
    for name in word[:-1]:
        part = part[name]
    part[word[-1]] = "of-a-newer-release"
    read = decode(json.dumps(raw))
    assert codec.keeping(kind, encode(read), json.dumps(raw)) == json.dumps(  # type: ignore[operator]
        raw, separators=(",", ":")
    )


def test_what_a_word_of_a_newer_release_is_read_as() -> None:
    """What takes the least, and what this release writes over it is what counts then."""
    raw = json.loads(codec.encode_tenant(Tenant("a")))
    raw["priority_ceiling"] = "whenever"
    read = codec.decode_tenant(json.dumps(raw))
    assert read.priority_ceiling is Priority.BULK
    changed = codec.encode_tenant(replace(read, priority_ceiling=Priority.NORMAL))
    assert json.loads(codec.keeping(Tenant, changed, json.dumps(raw)))["priority_ceiling"] == (
        "normal"
    )
    one = version("a")
    raw = json.loads(codec.encode_version(one))
    raw["given"]["residency"]["mode"] = raw["given"]["placement"]["priority"] = "whenever"
    given = codec.decode_version(json.dumps(raw)).given
    assert (given.residency, given.placement) == (Residency(), Placement())
