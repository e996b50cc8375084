"""The verbs of watches and of versions whose file is fetched, on every store."""

from dataclasses import replace

import pytest

from control_plane.store.sources.source_verbs import SourceRecords
from control_plane.types.sources.source import Source
from control_plane.types.sources.watch import Watch
from control_plane.types.version import Imported, ServingSpec, VersionKey, VersionState
from tests.contract.registry.samples import PACK, SETTINGS, WATCHED, Case

URI = Source("s3://bucket/best.pt", "minio", "a" * 64)
KEY = VersionKey("fetched", 1)


async def registered(case: Case) -> ServingSpec:
    given = ServingSpec(source=URI)
    made = await case.registry.register("fetched", "", SETTINGS, "best.pt", "r1", 1.0, given)
    assert (made.key, made.state, made.is_fetching) == (KEY, VersionState.UPLOADED, True)
    return given


async def test_a_version_that_is_fetched_is_nobodys_to_import_until_its_file_is_there(
    case: Case,
) -> None:
    given, records = await registered(case), SourceRecords(case.registry)
    assert await case.registry.claim_import("i1", 10.0, 2.0) is None
    await records.progressed(KEY, 0.5, "fetch")
    seen = (await case.other.desired()).versions[KEY]
    assert (seen.state, seen.progress, seen.step) == (VersionState.UPLOADED, 0.5, "fetch")
    assert seen.given.source == URI
    there = await records.fetched(KEY, "a" * 64, replace(given, metadata={"a": "b"}), None)
    assert there is not None
    assert (there.artifact, there.progress, there.is_fetching) == ("a" * 64, 0.0, False)
    claimed = await case.registry.claim_import("i1", 10.0, 3.0)
    assert claimed is not None
    assert claimed.given.metadata == {"a": "b"}
    # A control plane that lost the lead comes too late with anything.
    assert await records.fetched(KEY, "b" * 64, given, None) is None
    assert await records.failed(KEY, "SOURCE_NOT_FOUND", "gone") is None
    await records.progressed(KEY, 0.7, "fetch")
    assert (await case.other.desired()).versions[KEY].state is VersionState.IMPORTING


async def test_what_was_imported_before_is_taken_over(case: Case) -> None:
    given = await registered(case)
    ready = await SourceRecords(case.registry).fetched(
        KEY, "a" * 64, given, Imported(PACK, SETTINGS)
    )
    assert ready is not None
    assert (ready.state, ready.pack) == (VersionState.READY, PACK)
    assert await case.registry.claim_import("i1", 10.0, 2.0) is None


async def test_a_fetch_fails_with_its_reason(case: Case) -> None:
    await registered(case)
    failed = await SourceRecords(case.registry).failed(KEY, "SOURCE_NOT_FOUND", "gone")
    assert failed is not None
    assert (failed.state, failed.reason, failed.message) == (
        VersionState.FAILED, "SOURCE_NOT_FOUND", "gone",
    )  # fmt: skip
    assert await case.registry.claim_import("i1", 10.0, 2.0) is None


async def test_watches_are_kept_with_what_they_saw(case: Case) -> None:
    records, seen = SourceRecords(case.registry), case.other
    assert await records.put_watch(WATCHED) == WATCHED
    assert (await seen.desired()).watches == {"line7": WATCHED}
    before = await seen.desired()
    noted = await records.note_watch(WATCHED, {"b.pt": "2"}, {"b.pt"})
    assert noted is not None
    assert noted.seen == {"b.pt": "2"}
    delta = await seen.desired_since(before)
    assert delta is not None
    assert delta.watches == {"line7": noted}
    told = await records.note_watch(noted, {}, (), "SOURCE_UNAVAILABLE: gone")
    assert told is not None
    assert (told.seen, told.error) == (noted.seen, "SOURCE_UNAVAILABLE: gone")
    again = await records.put_watch(replace(WATCHED, seen={}, begun=False, every_s=60.0))
    assert (again.seen, again.every_s) == (noted.seen, 60.0)
    assert await records.drop_watch("line7")
    assert not await records.drop_watch("line7")
    assert (await seen.desired()).watches == {}


@pytest.mark.parametrize(
    "elsewhere", [replace(WATCHED, uri="s3://bucket/other/"), replace(WATCHED, model="bolts")]
)
async def test_a_look_at_what_is_watched_no_more_notes_nothing(
    elsewhere: Watch, case: Case
) -> None:
    records = SourceRecords(case.registry)
    await records.put_watch(elsewhere)
    assert await records.note_watch(WATCHED, {"b.pt": "2"}, {"b.pt"}) is None
    assert (await case.other.desired()).watches == {"line7": elsewhere}
