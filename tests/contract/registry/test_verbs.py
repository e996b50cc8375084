"""Every promise of `Registry`, on the specification in memory and on two real servers."""

import asyncio
import json
from dataclasses import replace
from typing import cast

import pytest

from control_plane.store import codec
from control_plane.store.redis.redis_registry import RedisRegistry
from control_plane.store.registry import LOG_KEPT, Registry, StoreEmptied
from control_plane.store.rules import rule_codec
from control_plane.store.transaction import ImportJob, Transaction
from control_plane.store.write_verbs import WriteVerbs
from control_plane.types.access.tenant import Tenant
from control_plane.types.desired import Want, WantChanges, WantSource
from control_plane.types.event import EVENTS_KEPT, Event, EventKind
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.lease import FencingToken, Leader
from control_plane.types.moments.sun import Place, sun_moment
from control_plane.types.policy import (
    BatchingConfig,
    ModelRule,
    Placement,
    Residency,
    ResidencyMode,
)
from control_plane.types.rollout.alias import Alias, AliasKey, Target
from control_plane.types.rollout.family import Family, Member
from control_plane.types.schedule import NEVER, Changeover, Preparation, Schedule
from control_plane.types.version import (
    Drift,
    ModelVersion,
    ServedBuild,
    ServingSpec,
    VersionKey,
    VersionSettings,
    VersionState,
)
from control_plane.types.worker import Ledger, LoadReport, Replica, WorkerInfo, WorkerState
from tests.contract.registry.samples import (
    DAILY,
    DID,
    IMPORTED,
    ISSUED,
    NORTH,
    PACK,
    RULE,
    SETTINGS,
    STABLE,
    Case,
    a_want,
    register,
)
from yolopool.errors import (
    AliasChanged,
    ImportNotYours,
    InvalidOption,
    ModelReferenced,
    StaleToken,
    VersionNotFound,
)
from yolopool.labels import MAX_LABELS
from yolopool.names import build_name
from yolopool.vocabulary import HeadMode, Priority, ReplicaState


async def test_the_cluster_is_the_stores(case: Case) -> None:
    cluster = await case.registry.create()
    assert cluster == await case.registry.open() == await case.other.open()
    assert (await case.registry.desired()).cluster == cluster
    assert await case.other.create() == cluster


async def test_register_numbers_from_one_and_keeps_all(registry: Registry) -> None:
    first = await registry.register("team/a", "a" * 64, SETTINGS, "best.pt", "", 100.0)
    assert (first.key, first.state) == (VersionKey("team/a", 1), VersionState.UPLOADED)
    assert await register(registry, "team/a") == VersionKey("team/a", 2)
    assert await register(registry, "b") == VersionKey("b", 1)
    desired = await registry.desired()
    assert desired.versions[first.key] == first
    assert len(desired.versions) == 3


async def test_twenty_at_once_get_distinct_numbers(case: Case) -> None:
    registries = (case.registry, case.other)
    keys = await asyncio.gather(*(register(registries[i % 2]) for i in range(20)))
    assert sorted(key.number for key in keys) == list(range(1, 21))


async def test_a_repeated_request_answers_its_version(registry: Registry) -> None:
    key = await register(registry, request_id="r1")
    assert await register(registry, request_id="r1") == key
    assert await register(registry, request_id="r2") != key
    later = await registry.register("shapes", "a" * 64, SETTINGS, "", "r1", 100.0 + 90_000)
    assert later.key != key


async def test_numbers_stay_used_after_delete(registry: Registry) -> None:
    one, two = await register(registry), await register(registry)
    await registry.want(a_want(two))
    assert await registry.delete([two, VersionKey("no", 1), two]) == (two,)
    desired = await registry.desired()
    assert set(desired.versions) == {one}
    assert desired.wants == {}
    assert await registry.delete([two]) == ()
    assert (await register(registry)).number == 3


async def test_what_was_given_and_asked_for_is_kept(case: Case) -> None:
    given = ServingSpec(
        Residency(ResidencyMode.ON_DEMAND, 5.0, True), "nc: 2", ("circle", "square")
    )
    asked = VersionSettings(head_mode=HeadMode.END_TO_END)
    made = await case.registry.register("a", "f" * 64, asked, "a.pt", "", 1.0, given)
    assert (made.given, made.asked) == (given, asked)
    claimed = await case.other.claim_import("i", 10.0, 1.0)
    assert claimed is not None
    await case.other.finish_import("i", made.key, PACK, SETTINGS)
    kept = (await case.other.desired()).versions[made.key]
    assert (kept.given, kept.asked, kept.settings, kept.pack) == (given, asked, SETTINGS, PACK)


async def test_a_version_is_kept_as_it_was_set_last(case: Case) -> None:
    key = await register(case.registry)
    before = (await case.registry.desired()).revision
    standby = Residency(ResidencyMode.HOT_STANDBY)
    changed = await case.registry.set_residency(key, standby)
    assert changed is not None
    assert changed.given.residency == standby
    desired = await case.other.desired()
    assert desired.versions[key] == changed
    assert desired.revision > before
    assert desired.want(key) == Want(key, 1, True, WantSource.ADMIN, changed.created_unix_s)
    await case.registry.set_residency(key, standby)
    assert (await case.other.desired()).revision == desired.revision
    assert await case.registry.set_residency(VersionKey("absent", 1), standby) is None


async def test_a_version_may_run_where_it_was_said_last(case: Case) -> None:
    key = await register(case.registry)
    there = Placement("night", {"site": "berlin"}, 4, Priority.BULK)
    changed = await case.registry.set_placement(key, there)
    assert changed is not None
    desired = await case.other.desired()
    assert desired.versions[key].given.placement == there
    await case.registry.set_placement(key, there)
    assert (await case.other.desired()).revision == desired.revision
    assert await case.registry.set_placement(VersionKey("absent", 1), there) is None


async def test_a_version_has_the_labels_that_it_was_given_last(case: Case) -> None:
    key = await register(case.registry)
    await case.registry.set_labels(key, {"line": "7", "old": "x"}, ())
    changed = await case.other.set_labels(key, {"line": "8"}, ("old", "absent"))
    assert changed is not None
    desired = await case.other.desired()
    assert desired.versions[key].given.labels == {"line": "8"}
    await case.registry.set_labels(key, {"line": "8"}, ("old",))
    assert (await case.other.desired()).revision == desired.revision
    many = {f"l{number}": "" for number in range(MAX_LABELS)}
    with pytest.raises(InvalidOption, match=f"at most {MAX_LABELS}"):
        await case.registry.set_labels(key, many, ())
    assert (await case.other.desired()).versions[key].given.labels == {"line": "8"}
    assert await case.registry.set_labels(VersionKey("absent", 1), {}, ()) is None


async def test_a_number_that_was_given_is_not_given_again(case: Case) -> None:
    async def number(asked: int, above: int = 0) -> int:
        made = await case.registry.register(
            "a", "a" * 64, SETTINGS, "", "", 1.0, above=above, number=asked
        )
        return made.key.number

    assert [await number(5), await number(0), await number(9)] == [5, 6, 9]
    for asked, above in ((9, 0), (3, 0), (12, 12)):
        with pytest.raises(InvalidOption, match=f"a can't have version {asked}: the next is"):
            await number(asked, above)
    await case.registry.delete([VersionKey("a", 9)])
    with pytest.raises(InvalidOption, match="the next is 10"):
        await number(9)


async def test_a_version_is_batched_by_kind_of_device_as_it_was_said_last(case: Case) -> None:
    key = await register(case.registry)
    slow, fast = BatchingConfig(4, (2, 4), 2.5, 32), BatchingConfig(16, fixed=True)
    await case.registry.set_batching(key, "cpu", slow)
    both = await case.other.set_batching(key, "cuda", fast)
    assert both is not None
    desired = await case.other.desired()
    assert desired.versions[key].given.batching == {"cpu": slow, "cuda": fast}
    await case.registry.set_batching(key, "cuda", fast)
    assert (await case.other.desired()).revision == desired.revision
    await case.registry.set_batching(key, "cpu", None)
    assert (await case.other.desired()).versions[key].given.batching == {"cuda": fast}
    assert await case.registry.set_batching(VersionKey("absent", 1), "cpu", slow) is None


async def test_a_build_is_a_row_of_its_own_and_its_version_may_be_served_by_it(case: Case) -> None:
    key = await register(case.registry)
    built = ServingSpec(
        served={"cpu": ServedBuild("openvino", "int8")}, build_of=key, calibration="c" * 64
    )
    name = VersionKey("a+openvino-int8-cpu", key.number)
    row = ModelVersion(name, VersionState.UPLOADED, "f" * 64, SETTINGS, 1.0, given=built)
    assert await case.registry.add_build(row) == row
    assert await case.other.add_build(replace(row, created_unix_s=2.0)) == row
    first = await case.registry.claim_import("i", 10.0, 1.0)
    second = await case.registry.claim_import("i", 10.0, 1.0)
    assert [one.key for one in (first, second) if one is not None] == [key, name]
    await case.registry.fail_import("i", name, "IMPORT_CRASHED", "why")
    again = await case.registry.add_build(row)
    assert again == row
    claimed = await case.registry.claim_import("i", 10.0, 1.0)
    assert claimed is not None
    assert (claimed.key, claimed.given) == (name, built)
    made = await case.registry.finish_import("i", name, replace(PACK, backend="openvino"), SETTINGS)
    drift = Drift("torch/fp32", 5, 9, 8, 1, 0.5, 0.25, map50=0.5)
    served = ServedBuild("openvino", "int8", made.pack, drift)
    changed = await case.registry.set_served(key, "cpu", served)
    desired = await case.other.desired()
    assert desired.versions[key] == changed
    assert desired.versions[key].given.served == {"cpu": served}
    await case.registry.set_served(key, "cpu", None)
    assert not (await case.other.desired()).versions[key].given.served
    await case.registry.delete([key])
    orphan = replace(row, key=VersionKey("a+onnx-fp32-cpu", key.number))
    assert await case.registry.add_build(orphan) is None


async def test_a_cordon_is_of_one_process(case: Case) -> None:
    await case.registry.open()
    await case.registry.cordon("w1", "first")
    desired = await case.other.desired()
    assert desired.cordons == {"w1": "first"}
    await case.other.cordon("w1", "first")
    assert (await case.other.desired()).revision == desired.revision
    await case.other.cordon("w1", "second")
    assert (await case.registry.desired()).cordons == {"w1": "second"}


async def test_a_plan_lowers_a_want_to_what_it_left(case: Case) -> None:
    key = await register(case.registry)
    await case.registry.want(a_want(key, replicas=3))
    assert await case.registry.forget(key, left=2)
    assert (await case.other.desired()).wants[key].replicas == 2
    assert await case.registry.forget(key, left=5)
    assert (await case.other.desired()).wants[key].replicas == 2
    assert await case.registry.forget(key)
    assert (await case.other.desired()).wants == {}


async def test_a_want_may_be_made_young_again(case: Case) -> None:
    key = await register(case.registry)
    await case.registry.want(a_want(key, replicas=2, pinned=True))
    renewed = await case.registry.renew(key, 99.0)
    assert renewed == a_want(key, replicas=2, pinned=True, since_unix_s=99.0)
    assert (await case.other.desired()).wants[key] == renewed
    assert await case.registry.renew(VersionKey("absent", 1), 99.0) is None


async def test_a_prefetch_gives_way_to_any_want_and_changes_none(case: Case) -> None:
    key = await register(case.registry)
    ahead = a_want(key, source="PREFETCH", since_unix_s=10.0)
    assert await case.registry.want(ahead) == ahead
    missed = a_want(key, source="MISS", since_unix_s=20.0)
    assert await case.other.want(missed) == missed
    assert await case.registry.want(ahead) == missed


async def a_build(registry: Registry, key: VersionKey, variant: str) -> ServedBuild:
    """A build that is READY."""
    backend, _, precision = variant.partition("/")
    name = VersionKey(build_name(key.model, backend, precision, "cpu"), key.number)
    spec = ServingSpec(served={"cpu": ServedBuild(backend, precision)}, build_of=key)
    pack = replace(PACK, backend=backend)
    row = ModelVersion(name, VersionState.READY, "f" * 64, SETTINGS, 1.0, pack=pack, given=spec)
    assert await registry.add_build(row) == row
    return ServedBuild(backend, precision, pack)


async def test_two_comparisons_at_a_time_both_count(case: Case) -> None:
    key = await register(case.registry)
    build = await a_build(case.registry, key, "torch/bf16")
    amx, avx2 = Drift(images=3, compute_class="amx"), Drift(images=3, compute_class="avx2")
    await asyncio.gather(
        case.registry.set_served(key, "cpu", build, amx),
        case.other.set_served(key, "cpu", build, avx2),
    )
    version = (await case.registry.desired()).versions[key]
    assert version.given.served["cpu"].checks == {"amx": amx, "avx2": avx2}


async def test_the_comparisons_of_a_build_outlive_its_serving(case: Case) -> None:
    key = await register(case.registry)
    bf16 = await a_build(case.registry, key, "torch/bf16")
    int8 = await a_build(case.registry, key, "openvino/int8")
    drift = Drift(images=3, compute_class="amx")
    await case.registry.set_served(key, "cpu", bf16, drift)
    for between in (None, int8):
        changed = await case.registry.set_served(key, "cpu", between)
        assert changed is not None
        assert changed.given.served == ({"cpu": between} if between else {})
        again = await case.other.set_served(key, "cpu", bf16)
        assert again is not None
        assert again.given.served == {"cpu": bf16.compared(drift)}
    # Served again as it is: its drift stays as well, and nothing is written.
    revision = (await case.registry.desired()).revision
    assert await case.registry.set_served(key, "cpu", bf16) == again
    assert (await case.registry.desired()).revision == revision
    # Another pack was compared with nothing.
    other = replace(bf16, pack=replace(PACK, digest="e" * 64))
    made = await case.registry.set_served(key, "cpu", other)
    assert made is not None
    assert made.given.served == {"cpu": other}


async def test_footprints_are_kept_for_good(case: Case) -> None:
    assert await case.registry.footprints() == {}
    cpu = FootprintKey("d" * 64, "torch/fp32", "cpu")
    sim = FootprintKey("d" * 64, "simulated/fp32", "sim")
    revision = (await case.registry.desired()).revision
    await case.registry.record_footprint(cpu, Footprint(10, 20, 3, 4, 1.5))
    await case.registry.record_footprint(sim, Footprint(1, 2))
    await case.registry.record_footprint(cpu, Footprint(11, 20, 3, 4, 1.5))
    known = {cpu: Footprint(11, 20, 3, 4, 1.5), sim: Footprint(1, 2)}
    assert await case.other.footprints() == known
    assert (await case.registry.desired()).revision == revision
    await case.empty()
    assert await case.other.footprints() == {}


async def test_a_want_is_set_and_set_again(registry: Registry) -> None:
    key = await register(registry)
    want = await registry.want(a_want(key, 2))
    revision = (await registry.desired()).revision
    assert await registry.want(a_want(key, 2, since_unix_s=99.0)) == want
    desired = await registry.desired()
    assert desired.wants == {key: want}
    assert desired.revision == revision
    assert await registry.want(a_want(VersionKey("no", 1))) is None


async def test_a_miss_never_lowers_or_unpins(registry: Registry) -> None:
    key = await register(registry)
    await registry.want(a_want(key, 3, pinned=True))
    held = await registry.want(a_want(key, 1, source=WantSource.MISS))
    assert held is not None
    assert (held.replicas, held.pinned, held.source) == (3, True, WantSource.ADMIN)
    assert (await registry.want(a_want(key, 1))).replicas == 1  # type: ignore[union-attr] # it is


async def test_forget(registry: Registry) -> None:
    key = await register(registry)
    await registry.want(a_want(key))
    assert await registry.forget(key)
    assert not await registry.forget(key)
    assert (await registry.desired()).wants == {}


async def test_a_plans_forget_is_fenced_and_spares_the_pinned(registry: Registry) -> None:
    soft, hard = await register(registry), await register(registry, "b")
    await registry.want(a_want(soft))
    await registry.want(a_want(hard, pinned=True))
    token = await registry.take_lease("one", 5.0, None)
    assert token is not None
    stale = FencingToken(token.epoch, token.counter - 1)
    for key in (soft, VersionKey("no", 1)):
        with pytest.raises(StaleToken):
            await registry.forget(key, stale)
        with pytest.raises(StaleToken):
            await registry.want(a_want(key, 2), stale)
    assert not await registry.forget(hard, token)
    assert await registry.forget(soft, token)
    assert set((await registry.desired()).wants) == {hard}


async def test_wants_change_all_at_once(case: Case) -> None:
    registry, seen = case.registry, case.other
    await registry.open()
    a, b, c = [await register(registry, name) for name in "abc"]
    absent = VersionKey("absent", 1)
    old = a_want(a, 2, source=WantSource.MISS)
    await registry.want(old)
    await registry.want(a_want(b))
    revision = (await registry.desired()).revision
    new = [a_want(a, 3, pinned=True, since_unix_s=60.0), a_want(c), a_want(absent)]
    before = await registry.change_wants(new, [b, absent])
    assert sorted(before, key=lambda want: want.key) == [old, a_want(b)]
    desired = await seen.desired()
    assert desired.wants == {a: new[0], c: new[1]}
    assert desired.revision == revision + 1
    # Again: nothing to do. And back, exactly as it was.
    assert len(await registry.change_wants(new, [b])) == 2
    assert (await seen.desired()).revision == revision + 1
    await registry.change_wants(before, [c])
    assert (await seen.desired()).wants == {a: old, b: a_want(b)}


async def test_a_hot_standby_ends_in_the_same_step(registry: Registry) -> None:
    key = await register(registry)
    standby = Residency(ResidencyMode.HOT_STANDBY, cpu_fallback=True)
    await registry.set_residency(key, standby)
    await registry.want(a_want(key))
    revision = (await registry.desired()).revision
    await registry.change_wants([], [key], end_standby=[key, VersionKey("absent", 1)])
    desired = await registry.desired()
    assert desired.all_wants() == {}
    assert desired.versions[key].given.residency == replace(standby, mode=ResidencyMode.NORMAL)
    assert desired.revision == revision + 1


PLACE = Placement("night", {"zone": "a"}, 3, Priority.BULK)
NIGHT = Schedule(
    "night",
    "0 19 * * 1-5",
    "Europe/Berlin",
    600.0,
    Changeover((Preparation("a", 2, True, PLACE), Preparation("b@3")), ("day",)),
    since_unix_s=100.0,
)


async def test_schedules_are_kept_as_they_were_set(case: Case) -> None:
    registry, seen = case.registry, case.other
    await registry.open()
    assert await registry.put_schedule(NIGHT) == NIGHT
    assert (await seen.desired()).schedules == {"night": NIGHT}
    noted = await registry.note_schedule("night", 200.0, "NO_WORKER: start one")
    assert noted == replace(NIGHT, last_unix_s=200.0, last_error="NO_WORKER: start one")
    revision = (await seen.desired()).revision
    # The same words, later: it stays what it was.
    assert await registry.put_schedule(replace(NIGHT, since_unix_s=300.0)) == noted
    assert await registry.note_schedule("night", 150.0, "") == noted
    assert (await seen.desired()).revision == revision
    # Other words: another schedule, of which nothing is noted.
    other = replace(NIGHT, cron="0 20 * * *", since_unix_s=300.0)
    assert await registry.put_schedule(other) == other
    assert await registry.note_schedule("night", 200.0, "late") == other
    assert (await seen.desired()).schedules == {"night": other}
    assert await registry.delete_schedule("night")
    assert not await registry.delete_schedule("night")
    assert await registry.note_schedule("night", 400.0, "") is None
    assert (await seen.desired()).schedules == {}


async def test_keys_are_kept_as_they_were_issued(case: Case) -> None:
    registry, seen = case.registry, case.other
    assert await registry.put_api_key(ISSUED) == ISSUED
    assert (await seen.desired()).api_keys == {ISSUED.id: ISSUED}
    revoked = replace(ISSUED, revoked_unix_s=5.0)
    assert await registry.change_api_key(ISSUED.id, lambda key: revoked) == revoked
    assert (await seen.desired()).api_keys == {ISSUED.id: revoked}
    assert await registry.change_api_key("none", lambda key: revoked) is None
    assert await registry.drop_api_key(ISSUED.id)
    assert not await registry.drop_api_key(ISSUED.id)
    assert (await seen.desired()).api_keys == {}


async def test_tenants_are_kept_as_they_were_set(case: Case) -> None:
    registry, seen = case.registry, case.other
    assert await registry.put_tenant(NORTH) == NORTH
    assert (await seen.desired()).tenants == {"north": NORTH}
    plain = Tenant("north")
    assert await registry.put_tenant(plain) == plain
    assert (await seen.desired()).tenants == {"north": plain}
    assert await registry.drop_tenant("north")
    assert not await registry.drop_tenant("north")
    assert (await seen.desired()).tenants == {}


async def test_a_rule_is_changed_in_place_and_goes_when_it_says_nothing(case: Case) -> None:
    registry, seen = case.registry, case.other
    empty = ModelRule("pinned")
    assert await registry.change_rule("pinned", lambda rule: rule) == empty
    assert await registry.change_rule("pinned", lambda _: RULE) == RULE
    assert (await seen.desired()).rules == {"pinned": RULE}
    kept = await seen.change_rule("pinned", lambda rule: replace(rule, keep_versions=9))
    assert kept == replace(RULE, keep_versions=9)
    both = await asyncio.gather(
        registry.change_rule("pinned", lambda rule: replace(rule, store_bytes=7)),
        seen.change_rule("pinned", lambda rule: replace(rule, gate=None)),
    )
    assert ModelRule("pinned", None, 9, 7) in both
    assert await registry.change_rule("pinned", lambda _: empty) == empty
    assert (await seen.desired()).rules == {}


async def test_how_a_version_did_stays_with_it(case: Case) -> None:
    registry, seen = case.registry, case.other
    key = await register(registry)
    noted = await registry.note_validation(key, DID)
    assert noted is not None
    assert noted.validation == DID
    assert (await seen.desired()).versions[key] == noted
    assert await registry.note_validation(VersionKey("none", 1), DID) is None
    token = await registry.take_lease("one", 5.0, None)
    assert token is not None
    stale = FencingToken(token.epoch, token.counter - 1)
    with pytest.raises(StaleToken):
        await registry.note_validation(key, replace(DID, map50=0.1), stale)


async def test_a_version_that_an_alias_needs_is_not_deleted(case: Case) -> None:
    registry = case.registry
    one, two = await register(registry), await register(registry)
    await registry.put_alias(Alias(one.model, "stable", (Target(1, 1000),), 600.0, 1.0), 0)
    with pytest.raises(ModelReferenced, match="shapes:stable"):
        await registry.delete([two, one])
    assert set((await case.other.desired()).versions) == {one, two}
    assert await registry.delete([two]) == (two,)
    await registry.drop_alias(AliasKey(one.model, "stable"), 1)
    assert await registry.delete([one]) == (one,)


async def test_an_alias_is_changed_by_whoever_saw_it_last(case: Case) -> None:
    registry, seen = case.registry, case.other
    key = await register(registry)
    first = Alias(key.model, "stable", (Target(key.number, 1000),), 600.0, 1.0)
    held = await registry.put_alias(first, 0)
    assert held == replace(first, revision=1)
    assert (await seen.desired()).aliases == {first.key: held}
    newer = replace(held, keep_s=5.0)
    for expected in (0, 2, 7):
        with pytest.raises(AliasChanged):
            await registry.put_alias(newer, expected)
    # Of two who saw the same one, one comes first, and the other is told.
    both = [registry.put_alias(replace(held, keep_s=n), 1) for n in (1.0, 2.0)]
    ends = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["Alias", "AliasChanged"]
    with pytest.raises(AliasChanged):
        await registry.drop_alias(first.key, 1)
    await registry.drop_alias(first.key, 2)
    assert (await seen.desired()).aliases == {}
    for expected in (0, 1):
        with pytest.raises(AliasChanged):
            await registry.drop_alias(first.key, expected)


async def test_an_alias_names_only_versions_that_are_there(case: Case) -> None:
    registry = case.registry
    key = await register(registry)
    lost = Alias(key.model, "stable", (Target(9, 1000),), 600.0, 1.0)
    with pytest.raises(VersionNotFound):
        await registry.put_alias(lost, 0, WantChanges((a_want(key),)))
    assert not (await case.other.desired()).wants  # all or nothing
    held = await registry.put_alias(replace(lost, targets=(Target(key.number, 1000),)), 0)
    # An earlier release deletes what an alias names: it can still be moved away, and deleted.
    await cast("WriteVerbs", registry).write(lambda tx: tx.drop_version(key))
    assert (await registry.put_alias(replace(held, keep_s=1.0), 1)).revision == 2


async def test_an_alias_moves_and_wants_change_in_one_write(case: Case) -> None:
    registry = case.registry
    one, two = await register(registry), await register(registry)
    await registry.want(a_want(one, 2))
    alias = Alias(one.model, "stable", (Target(two.number, 1000),), 600.0, 1.0)
    before = await case.other.desired()
    await registry.put_alias(alias, 0, WantChanges((a_want(two, 3),), (one,)))
    after = await case.other.desired()
    assert after.revision == before.revision + 1
    assert after.wants == {two: a_want(two, 3)}


def test_what_a_newer_release_wrote_of_an_alias_is_read_and_kept() -> None:
    raw = json.loads(codec.encode_alias(STABLE))
    raw["colour"] = "blue"
    text = json.dumps(raw)
    assert codec.decode_alias(text) == STABLE
    assert json.loads(codec.keeping(Alias, codec.encode_alias(STABLE), text))["colour"] == "blue"


def test_what_a_newer_release_wrote_of_a_rule_is_read_and_kept() -> None:
    raw = json.loads(rule_codec.encode_rule(RULE))
    raw["colour"] = raw["gate"]["colour"] = "blue"
    text = json.dumps(raw)
    assert rule_codec.decode_rule(text) == RULE
    kept = json.loads(codec.keeping(ModelRule, rule_codec.encode_rule(RULE), text))
    assert kept["colour"] == "blue"


def test_what_a_newer_release_wrote_of_a_tenant_is_read() -> None:
    raw = json.loads(codec.encode_tenant(NORTH))
    raw["colour"] = raw["limits"]["colour"] = "blue"
    assert codec.decode_tenant(json.dumps(raw)) == NORTH


def test_what_a_newer_release_wrote_of_a_schedule_is_read() -> None:
    raw = json.loads(codec.encode_schedule(NIGHT))
    raw["colour"] = raw["change"]["colour"] = raw["change"]["prepare"][0]["colour"] = "blue"
    raw["change"]["prepare"][0]["placement"]["colour"] = "blue"
    del raw["last_error"]
    assert codec.decode_schedule(json.dumps(raw)) == NIGHT


async def test_one_by_the_sun_is_kept_and_an_older_release_leaves_it_alone(case: Case) -> None:
    at_dusk = replace(NIGHT, cron=NEVER, sun=sun_moment("dusk-15m", Place(52.52, 13.405)))
    assert await case.registry.put_schedule(at_dusk) == at_dusk
    assert (await case.other.desired()).schedules == {"night": at_dusk}
    assert await case.registry.put_schedule(NIGHT) == NIGHT
    assert (await case.other.desired()).schedules == {"night": NIGHT}


async def test_a_family_is_kept_as_it_was_set(case: Case) -> None:
    sizes = Family((Member("a"), Member("b@3")), 0.5, task="detect", classes="c" * 64)
    day = replace(
        sizes,
        members=(Member("a", "dawn"), Member("b", "dusk-15m")),
        within_s=0.0,
        time_zone="Europe/Berlin",
        place=Place(52.52, 13.405),
    )
    for revision, family in enumerate((sizes, day)):
        alias = Alias("site", "any", (), 600.0, 1.0, family=family)
        held = await case.registry.put_alias(alias, revision)
        assert held == replace(alias, revision=revision + 1)
        assert (await case.other.desired()).aliases == {alias.key: held}
    raw = json.loads(codec.encode_alias(held))
    raw["family"]["colour"] = raw["family"]["members"][0]["colour"] = "blue"
    raw["family"]["place"]["colour"] = "blue"
    assert codec.decode_alias(json.dumps(raw)) == held


def test_a_schedule_by_the_sun_never_comes_for_who_knows_no_sun() -> None:
    at_dusk = replace(NIGHT, cron=NEVER, sun=sun_moment("dusk-15m", Place(52.52, 13.405)))
    raw = json.loads(codec.encode_schedule(at_dusk))
    older = replace(NIGHT, cron=raw["cron"])
    assert older.next_after(2e9) == float("inf")
    assert older.latest_at(2e9) == float("-inf")
    # It replaces the schedule, and keeps the field that it does not know.
    raw["cron"] = "0 6 * * *"
    assert codec.decode_schedule(json.dumps(raw)) == replace(NIGHT, cron="0 6 * * *")
    newer = json.loads(codec.encode_schedule(at_dusk))
    newer["sun"]["event"] = "noon"
    assert codec.decode_schedule(json.dumps(newer)).next_after(2e9) == float("inf")


async def test_imports_are_given_out_in_order_and_once(case: Case) -> None:
    registry = case.registry
    keys = [await register(registry, name) for name in "cab"]
    claims = [
        await (case.registry, case.other)[i % 2].claim_import(f"importer{i}", 10.0, 200.0)
        for i in range(4)
    ]
    assert [claim.key for claim in claims if claim is not None] == keys
    assert claims[3] is None
    assert claims[0] is not None
    assert claims[0].state is VersionState.IMPORTING


async def test_claims_at_once_never_share_a_job(registry: Registry) -> None:
    for name in "abcde":
        await register(registry, name)
    claims = await asyncio.gather(*(registry.claim_import(f"i{n}", 10.0, 1.0) for n in range(8)))
    taken = [claim.key for claim in claims if claim is not None]
    assert len(taken) == len(set(taken)) == 5


async def test_an_import_to_the_end(registry: Registry) -> None:
    key = await register(registry)
    await registry.claim_import("one", 10.0, 200.0)
    await registry.report_progress("one", key, 0.5, "fuse", 10.0, 205.0)
    version = (await registry.desired()).versions[key]
    assert (version.progress, version.step) == (0.5, "fuse")
    assert await registry.claim_import("two", 10.0, 214.0) is None  # the lease was renewed
    resolved = replace(SETTINGS, image_size=640)
    ready = await registry.finish_import("one", key, PACK, resolved)
    assert (ready.state, ready.pack, ready.settings) == (VersionState.READY, PACK, resolved)
    assert (await registry.desired()).versions[key] == ready
    assert await registry.finish_import("one", key, PACK, resolved) == ready
    assert await registry.claim_import("two", 10.0, 999.0) is None


async def test_a_failed_import_keeps_its_reason(registry: Registry) -> None:
    key = await register(registry)
    await registry.claim_import("one", 10.0, 200.0)
    failed = await registry.fail_import("one", key, "ARTIFACT_UNSAFE", "no")
    assert (failed.state, failed.reason, failed.message) == (
        VersionState.FAILED, "ARTIFACT_UNSAFE", "no",
    )  # fmt: skip
    assert await registry.fail_import("one", key, "ARTIFACT_UNSAFE", "no") == failed
    assert await registry.claim_import("two", 10.0, 999.0) is None


async def test_a_lease_that_ran_out_gives_the_job_to_another(registry: Registry) -> None:
    key = await register(registry)
    await registry.claim_import("one", 10.0, 200.0)
    assert await registry.claim_import("two", 10.0, 209.0) is None
    claim = await registry.claim_import("two", 10.0, 210.0)
    assert claim is not None
    assert claim.key == key
    with pytest.raises(ImportNotYours):
        await registry.report_progress("one", key, 0.5, "fuse", 10.0, 211.0)
    with pytest.raises(ImportNotYours):
        await registry.finish_import("one", key, PACK, SETTINGS)
    with pytest.raises(ImportNotYours):
        await registry.fail_import("one", key, "X", "y")


async def test_a_job_is_its_importers_and_of_the_caller_that_claimed_it(registry: Registry) -> None:
    """An importer's name is no secret."""
    key = await register(registry)
    await registry.claim_import("one", 10.0, 200.0, "certificate:imp-1")
    for by in ("certificate:imp-2", "key:abc", ""):
        with pytest.raises(ImportNotYours, match="by another"):
            await registry.report_progress("one", key, 0.5, "fuse", 10.0, 201.0, by)
        with pytest.raises(ImportNotYours):
            await registry.finish_import("one", key, PACK, SETTINGS, by)
        with pytest.raises(ImportNotYours):
            await registry.fail_import("one", key, "X", "y", by)
    await registry.report_progress("one", key, 0.5, "fuse", 10.0, 201.0, "certificate:imp-1")
    ready = await registry.finish_import("one", key, PACK, SETTINGS, "certificate:imp-1")
    assert ready.state is VersionState.READY


async def test_a_job_that_the_release_before_gave_out_goes_by_the_importers_name(
    registry: Registry,
) -> None:
    """It did not note whose the importer is."""
    key = await register(registry)
    await registry.claim_import("one", 10.0, 200.0)
    await registry.report_progress("one", key, 0.5, "fuse", 10.0, 201.0, "certificate:imp-1")
    with pytest.raises(ImportNotYours):
        await registry.report_progress("two", key, 0.5, "fuse", 10.0, 201.0, "certificate:imp-1")


async def test_a_deleted_version_is_nobodys_job(registry: Registry) -> None:
    key = await register(registry)
    await registry.claim_import("one", 10.0, 200.0)
    await registry.delete([key])
    with pytest.raises(ImportNotYours):
        await registry.finish_import("one", key, PACK, SETTINGS)


async def test_what_was_imported_before_needs_no_importer(registry: Registry) -> None:
    key = await register(registry, imported=IMPORTED)
    ready = (await registry.desired()).versions[key]
    assert (ready.state, ready.pack, ready.settings) == (VersionState.READY, *IMPORTED)
    assert await registry.claim_import("one", 10.0, 200.0) is None


async def test_a_number_is_above_all_that_the_caller_knows(registry: Registry) -> None:
    assert await register(registry, above=4) == VersionKey("shapes", 5)
    assert await register(registry, above=2) == VersionKey("shapes", 6)
    assert await register(registry) == VersionKey("shapes", 7)


async def test_a_version_is_never_replaced_by_another(registry: Registry) -> None:
    """Whatever became of the highest number."""
    first = await register(registry)

    def forget_numbers(tx: Transaction) -> None:
        tx.put_number(first.model, tx.number(first.model) - 1)

    await registry.write(forget_numbers)
    assert await register(registry) == VersionKey("shapes", 2)
    assert set((await registry.desired()).versions) == {first, VersionKey("shapes", 2)}


async def test_a_job_of_a_version_that_needs_none_blocks_no_other(registry: Registry) -> None:
    ready = await register(registry, imported=IMPORTED)

    def stray(tx: Transaction) -> None:
        assert tx.job(ready) is None
        tx.put_job(ready, ImportJob(0))

    await registry.write(stray)
    waiting = await register(registry)
    claim = await registry.claim_import("one", 10.0, 200.0)
    assert claim is not None
    assert claim.key == waiting


async def test_the_lease_has_one_holder_and_growing_tokens(case: Case) -> None:
    one = await case.registry.take_lease("one", 5.0, None, "box:1")
    assert one is not None
    assert await case.other.take_lease("two", 5.0, None) is None
    assert await case.other.leader() == Leader("one", one, "box:1")
    assert await case.registry.keep_lease(one, 5.0)
    await case.registry.drop_lease(one)
    assert await case.registry.leader() is None
    assert not await case.registry.keep_lease(one, 5.0)
    two = await case.other.take_lease("two", 5.0, None)
    assert two is not None
    assert two > one
    await case.registry.drop_lease(one)  # of another by now
    assert await case.registry.leader() == Leader("two", two)


async def test_a_lease_runs_out(case: Case) -> None:
    one = await case.registry.take_lease("one", 0.1, None)
    assert one is not None
    await asyncio.sleep(0.2)
    assert not await case.registry.keep_lease(one, 5.0)
    two = await case.other.take_lease("two", 5.0, None)
    assert two is not None
    assert two > one


async def test_a_token_is_above_what_the_workers_saw(registry: Registry) -> None:
    seen = FencingToken(4_000_000_000_000, 17)
    token = await registry.take_lease("one", 5.0, seen)
    assert token is not None
    assert token > seen


async def test_an_emptied_store_is_written_to_by_nobody(case: Case) -> None:
    before = await case.registry.take_lease("one", 5.0, None)
    assert before is not None
    key, known = await register(case.registry), await case.registry.desired()
    await case.empty()
    assert await case.registry.open() == ""
    assert not await case.registry.keep_lease(before, 5.0)
    for call in (
        case.registry.desired(),
        case.registry.desired_since(known),
        case.registry.take_lease("one", 5.0, None),
        case.registry.want(a_want(key)),
        case.registry.forget(key, before),
        case.registry.delete([key]),
        case.registry.set_residency(key, Residency()),
        case.registry.cordon("w1", "i1"),
        case.registry.change_wants([a_want(key)]),
        case.registry.put_schedule(DAILY),
        case.registry.delete_schedule("day"),
        case.registry.note_schedule("day", 1.0, ""),
        case.registry.put_api_key(ISSUED),
        case.registry.change_api_key("k1", lambda key: key),
        case.registry.drop_api_key("k1"),
        case.registry.put_tenant(NORTH),
        case.registry.drop_tenant("north"),
        case.registry.change_rule("a", lambda rule: rule),
        case.registry.claim_import("i1", 1.0, 1.0),
        register(case.registry),
        anext(case.registry.changes()),
    ):
        with pytest.raises(StoreEmptied):
            await call
    assert await case.registry.open() == ""


async def test_a_new_store_in_its_place_never_crowns_a_stale_writer(case: Case) -> None:
    cluster = await case.registry.open()
    before = await case.registry.take_lease("one", 5.0, None)
    assert before is not None
    await case.empty()
    assert await case.other.create() != cluster
    assert not await case.registry.keep_lease(before, 5.0)
    after = await case.other.take_lease("two", 5.0, before)
    assert after is not None
    assert after > before


async def filled(registry: Registry) -> tuple[VersionKey, VersionKey, VersionKey]:
    """A READY version that is wanted, one being imported, one that waits; and a deleted one."""
    ready = await register(registry, "a", imported=IMPORTED)
    importing = await register(registry, "b")
    await registry.want(a_want(ready, 2))
    await registry.claim_import("i1", 10.0, 1.0)
    await registry.delete([await register(registry, "c")])
    waiting = await register(registry, "c")
    await registry.cordon("w1", "i1")
    await registry.put_schedule(DAILY)
    return ready, importing, waiting


async def test_an_emptied_store_is_restored_from_a_copy(case: Case) -> None:
    _, importing, waiting = await filled(case.registry)
    before = await case.registry.take_lease("one", 5.0, None)
    copy = await case.registry.desired()
    assert before is not None
    assert not await case.registry.restore(copy, before)  # it is not empty
    await case.empty()
    assert await case.registry.restore(copy, before)
    assert not await case.other.restore(copy, before)
    now = await case.other.desired()
    assert (now.cluster, now.versions, now.wants) == (copy.cluster, copy.versions, copy.wants)
    assert (now.cordons, now.numbers) == (copy.cordons, copy.numbers)
    assert now.schedules == copy.schedules == {"day": DAILY}
    assert now.revision > copy.revision
    assert await case.other.desired_since(copy) is None
    assert not await case.registry.keep_lease(before, 5.0)
    after = await case.other.take_lease("two", 5.0, None)
    assert after is not None
    assert after.epoch > before.epoch
    assert await register(case.other, "c") == VersionKey("c", 3)
    with pytest.raises(ImportNotYours):
        await case.registry.report_progress("i1", importing, 0.5, "fuse", 1.0, 2.0)
    claims = [await case.other.claim_import("i2", 1.0, 2.0) for _ in range(2)]
    assert [claim.key for claim in claims if claim is not None] == [importing, waiting]


async def test_a_new_store_that_nobody_wrote_to_gives_way(case: Case) -> None:
    key = await register(case.registry)
    copy = await case.registry.desired()
    await case.empty()
    await case.other.create()
    assert await case.registry.restore(copy, None)
    assert set((await case.other.desired()).versions) == {key}
    await case.empty()
    await case.other.create()
    await register(case.other, "new")
    assert not await case.registry.restore(copy, None)
    assert set((await case.other.desired()).versions) == {VersionKey("new", 1)}


async def test_what_was_written_since_is_told(case: Case) -> None:
    registry = case.registry
    a = await register(registry, "a")
    known = await registry.desired()
    nothing = await registry.desired_since(known)
    assert nothing is not None
    assert (nothing.revision, nothing.mark) == (known.revision, known.mark)
    assert (nothing.versions, nothing.wants, nothing.cordons) == ({}, {}, {})
    b = await register(case.other, "b")
    await case.other.want(a_want(b))
    await case.other.want(a_want(a))
    await case.other.delete([a])
    await case.other.cordon("w1", "i1")
    await case.other.put_schedule(DAILY)
    changes, now = await registry.desired_since(known), await registry.desired()
    assert changes is not None
    assert (changes.revision, changes.mark) == (now.revision, now.mark)
    assert changes.versions == {a: None, b: now.versions[b]}
    assert changes.wants == {a: None, b: now.wants[b]}
    assert changes.cordons == {"w1": "i1"}
    assert changes.schedules == {"day": DAILY}
    assert changes.numbers.items() >= {"b": 1}.items()
    assert await registry.desired_since(replace(known, cluster="other")) is None


async def test_what_was_written_too_long_ago_is_not(case: Case) -> None:
    known = await case.registry.desired()
    for process in range(LOG_KEPT + 200):
        await case.registry.cordon("w1", str(process))
    assert await case.registry.desired_since(known) is None
    recent = await case.registry.desired()
    await case.registry.cordon("w1", "last")
    changes = await case.registry.desired_since(recent)
    assert changes is not None
    assert changes.cordons == {"w1": "last"}


async def test_changes_tell_of_anyones_writes(case: Case) -> None:
    changes = case.registry.changes()
    async with asyncio.timeout(20):
        first = await anext(changes)
        assert first == (await case.registry.desired()).revision
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await register(case.other)
        assert await waiting > first
    await changes.aclose()  # type: ignore[attr-defined] # a generator


def a_worker(incarnation: str = "i1") -> WorkerInfo:
    key = VersionKey("team/a", 3)
    return WorkerInfo(
        id="box-cpu",
        incarnation=incarnation,
        address="127.0.0.1:1",
        device="cpu",
        device_kind="cpu",
        state=WorkerState.READY,
        lease_until_s=123.0,
        ledger=Ledger(100, 10, 20),
        load=LoadReport(1, 64, 2.5, 7),
        replicas={key: Replica(key, ReplicaState.HOT, 20, 5, pinned=True, variant="torch")},
        device_name="A CPU",
        joined_unix_s=9.5,
        labels={"zone": "a"},
        release="0.1.0",
    )


async def test_workers_are_on_record_until_their_time_is_over(registry: Registry) -> None:
    await registry.record_workers([a_worker()], 30.0)
    assert await registry.workers() == (replace(a_worker(), lease_until_s=0.0),)
    await registry.drop_worker("box-cpu", "another")
    assert len(await registry.workers()) == 1
    await registry.drop_worker("box-cpu", "i1")
    assert await registry.workers() == ()
    await registry.record_workers([a_worker()], 0.05)
    await registry.record_workers([], 30.0)
    await asyncio.sleep(0.1)
    assert await registry.workers() == ()


# --- events ----------------------------------------------------------------------------------


def happening(number: int) -> Event:
    return Event(EventKind.ASSIGNED, float(number), "w1", VersionKey("a", 1), "", "it fits", "c1")


async def test_events_are_kept_in_order_and_read_from_anywhere(case: Case) -> None:
    registry = case.registry
    assert await registry.events() == ()
    bare = Event(EventKind.TAKEOVER, 0.5, message="decides now")
    ids = [await registry.append_event(bare)]
    ids += [await registry.append_event(happening(number)) for number in range(4)]
    kept = await case.other.events()
    assert kept[0] == replace(bare, id=ids[0])
    assert kept[1:] == tuple(replace(happening(n), id=ids[n + 1]) for n in range(4))
    order = [tuple(map(int, id_.split("-"))) for id_ in ids]
    assert order == sorted(set(order))
    assert await registry.events(after=ids[2]) == kept[3:]
    assert await registry.events(last=2) == kept[-2:]
    assert await registry.events(after=ids[1], last=10) == kept[2:]
    assert await registry.events(after=ids[-1]) == ()
    desired = await registry.desired()
    await registry.append_event(bare)
    assert (await registry.desired()).revision == desired.revision


async def test_the_next_event_is_waited_for(case: Case) -> None:
    registry = case.registry
    assert await registry.next_events("", 0.05) == ()
    first = await registry.append_event(happening(1))
    assert [one.id for one in await registry.next_events("", 5)] == [first]

    async def comes() -> tuple[Event, ...]:
        while not (found := await registry.next_events(first, 5)):
            pass
        return found

    waiting = asyncio.create_task(comes())
    await asyncio.sleep(0.05)
    second = await case.other.append_event(happening(2))
    assert [one.id for one in await waiting] == [second]


async def test_only_the_newest_events_are_kept(case: Case) -> None:
    for start in range(0, EVENTS_KEPT + 500, 250):
        batch = (case.registry.append_event(happening(start + n)) for n in range(50))
        await asyncio.gather(*batch)
        for _ in range(4):
            await asyncio.gather(*(case.registry.append_event(happening(start)) for _ in range(50)))
    kept = len(await case.registry.events())
    assert EVENTS_KEPT <= kept < EVENTS_KEPT + 250


async def test_a_kind_of_a_newer_release_is_read(case: Case) -> None:
    if not isinstance(case.registry, RedisRegistry):
        return
    text = '{"kind": "ECLIPSE", "unix_s": 1.0, "version": null, "moon": 1}'
    await case.registry._redis.xadd("yolopool:events", {"event": text})
    (event,) = await case.registry.events()
    assert (event.kind, event.unix_s, event.version) == (EventKind.UNSPECIFIED, 1.0, None)
