"""Which stored files nothing uses, and for how long they are kept."""

from dataclasses import replace

from control_plane.store.files.unused import (
    IMPORT_S,
    MIN_GRACE_S,
    FileKind,
    InUse,
    StoredFile,
    in_use,
    unused,
)
from control_plane.types.desired import Desired
from control_plane.types.version import ServedBuild, VersionState
from tests.unit.control_plane.fleets import key, replica, version, worker

NOW, GRACE_S = 1_000_000.0, 100.0
NOTHING = InUse(frozenset(), frozenset())


def a_file(kind: FileKind, name: str = "f", age_s: float = 1e6, size: int = 1) -> StoredFile:
    return StoredFile(kind, name, size, NOW - age_s)


def keeps(file: StoredFile, used: InUse = NOTHING, grace_s: float = GRACE_S) -> float | None:
    """For how long a file is kept; None: it is in use."""
    found = unused([file], used, grace_s, NOW)
    return found[0].keep_s if found else None


def test_what_versions_and_workers_name_is_in_use() -> None:
    one = version("a")
    assert one.pack is not None
    built = replace(one.pack, digest="built")
    served = one.given.served_by("cpu", ServedBuild("onnx", "int8", built))
    one = replace(one, artifact="file", given=replace(served, calibration="images"))
    pending = replace(version("b", state=VersionState.IMPORTING), artifact="other", pack=None)
    desired = Desired(1, "c", {one.key: one, pending.key: pending}, {})
    held = replace(replica("gone"), pack="held")
    used = in_use(desired, [worker("w1", replicas=[held])])
    assert used.artifacts >= {"file", "images", "other"}
    assert used.packs >= {"pack of a", "built", "held"}
    assert used.importing
    assert not in_use(Desired(1, "c", {key("a"): one}, {}), ()).importing


def test_what_is_in_use_stays_whatever_its_age() -> None:
    used = InUse(frozenset({"f"}), frozenset({"f"}))
    assert keeps(a_file(FileKind.ARTIFACT), used) is None
    assert keeps(a_file(FileKind.PACK), used) is None
    # The digest of a version's file says nothing of a pack of that name.
    assert keeps(a_file(FileKind.PACK), InUse(frozenset({"f"}), frozenset())) == 0


def test_an_unused_file_is_kept_for_its_grace() -> None:
    for kind in (FileKind.ARTIFACT, FileKind.PACK, FileKind.UPLOAD):
        assert keeps(a_file(kind, age_s=GRACE_S)) == 0
        assert keeps(a_file(kind, age_s=GRACE_S - 7)) == 7


def test_no_grace_is_too_short_for_those_who_work_at_the_moment() -> None:
    for kind in (FileKind.ARTIFACT, FileKind.PACK, FileKind.UPLOAD):
        assert keeps(a_file(kind, age_s=0), grace_s=0) == MIN_GRACE_S
    importing = replace(NOTHING, importing=True)
    assert keeps(a_file(FileKind.PACK, age_s=60), importing, 0) == IMPORT_S - 60
    assert keeps(a_file(FileKind.LEFTOVER, age_s=60), grace_s=0) == IMPORT_S - 60


def test_a_clock_that_went_back_removes_nothing() -> None:
    assert keeps(a_file(FileKind.ARTIFACT, age_s=-50)) == GRACE_S


def test_the_largest_comes_first() -> None:
    files = [a_file(FileKind.PACK, name, size=size) for name, size in (("a", 1), ("b", 9))]
    assert [one.file.name for one in unused(files, NOTHING, GRACE_S, NOW)] == ["b", "a"]
