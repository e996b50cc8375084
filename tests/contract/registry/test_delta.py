"""What `desired_since` answers after each verb: all that the verb changed, and nothing else.

Every method of `Registry` is in the table or in READS, so that a new one can't be forgotten.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import pytest

from control_plane.store.alerts.alert_verbs import drop_settings, put_setting
from control_plane.store.registry import Registry
from control_plane.store.sources.source_verbs import drop_watch, put_watch
from control_plane.types.access.tenant import Tenant
from control_plane.types.alerts.alert_setting import Threshold
from control_plane.types.desired import Desired, DesiredDelta, WantChanges, WantSource
from control_plane.types.event import Event, EventKind
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.lease import FencingToken
from control_plane.types.policy import (
    BatchingConfig,
    ModelRule,
    Placement,
    Residency,
    ResidencyMode,
)
from control_plane.types.rollout.alias import Alias, AliasKey, Target
from control_plane.types.version import (
    ModelVersion,
    ServedBuild,
    ServingSpec,
    VersionKey,
    VersionState,
)
from tests.contract.registry.samples import (
    DAILY,
    DID,
    HOOK,
    IMPORTED,
    ISSUED,
    NORTH,
    PACK,
    RULE,
    SETTINGS,
    WATCHED,
    Case,
    a_want,
    register,
)

Key = TypeVar("Key")
Value = TypeVar("Value")

# What only reads, or opens and closes the store. `restore` ends the history: test_verbs.
READS = {
    "accounts", "alert_records", "evidence", "open", "close", "restore", "desired", "desired_since",
    "changes", "leader", "workers", "footprints", "events", "next_events", "eviction_policy",
}  # fmt: skip

WANTED = VersionKey("wanted", 1)  # READY, two replicas wanted, kept as a hot standby
PINNED = VersionKey("pinned", 1)  # READY, one pinned replica wanted
IMPORTING = VersionKey("importing", 1)  # at importer "i1", with progress
FAILED = VersionKey("failed", 1)
WAITING = VersionKey("waiting", 1)  # UPLOADED
BUILD = VersionKey("pinned+onnx-fp32-cpu", 1)  # UPLOADED, a build of PINNED
ABSENT = VersionKey("absent", 1)
STANDBY = Residency(ResidencyMode.HOT_STANDBY)
PLACEMENT = Placement("night", {"zone": "a"}, 2)
BATCHING = BatchingConfig(4)
LABELS = {"line": "7"}
SERVED = ServedBuild("openvino", "int8")
HOUR_S = 3600.0


def a_build(name: VersionKey, of: VersionKey, **given: str) -> ModelVersion:
    spec = replace(ServingSpec(build_of=of), **given)  # type: ignore[arg-type] # fields of it
    return ModelVersion(name, VersionState.UPLOADED, "f" * 64, SETTINGS, 1.0, given=spec)


async def fill(registry: Registry) -> FencingToken:
    """One of everything; answers the leader's token."""
    for name in ("wanted", "pinned", "failed", "importing"):
        imported = IMPORTED if name in ("wanted", "pinned") else None
        await registry.register(
            name, "a" * 64, SETTINGS, "", f"request {name}", 100.0, imported=imported
        )
    await registry.set_residency(WANTED, STANDBY)
    await registry.set_placement(WANTED, PLACEMENT)
    await registry.set_batching(WANTED, "cpu", BATCHING)
    await registry.set_labels(WANTED, LABELS, ())
    await registry.set_served(WANTED, "cpu", SERVED)
    await registry.want(a_want(WANTED, 2))
    await registry.want(a_want(PINNED, pinned=True))
    await registry.claim_import("i0", HOUR_S, 0.0)
    await registry.fail_import("i0", FAILED, "ARTIFACT_UNSAFE", "no")
    await registry.claim_import("i1", HOUR_S, 0.0)
    await registry.report_progress("i1", IMPORTING, 0.5, "fuse", HOUR_S, 0.0)
    await register(registry, "waiting")
    await registry.add_build(a_build(BUILD, PINNED))
    await registry.cordon("w1", "first")
    await registry.put_schedule(DAILY)
    await registry.note_schedule("day", 200.0, "")
    await registry.put_api_key(ISSUED)
    await registry.put_tenant(NORTH)
    await registry.put_alias(LIVE, 0)
    await registry.change_rule("pinned", lambda _: RULE)
    await registry.write(lambda tx: put_watch(tx, WATCHED))
    await registry.write(lambda tx: put_setting(tx, HOOK))
    token = await registry.take_lease("one", HOUR_S, None)
    assert token is not None
    return token


@dataclass(frozen=True)
class Names:
    """The keys that a delta names."""

    versions: frozenset[VersionKey] = frozenset()
    wants: frozenset[VersionKey] = frozenset()
    cordons: frozenset[str] = frozenset()
    schedules: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    api_keys: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    aliases: frozenset[AliasKey] = frozenset()
    rules: frozenset[str] = frozenset()
    watches: frozenset[str] = frozenset()
    alerts: frozenset[str] = frozenset()


NOTHING = Names()


def version(*keys: VersionKey) -> Names:
    return Names(versions=frozenset(keys))


def want(*keys: VersionKey) -> Names:
    return Names(wants=frozenset(keys))


KEY = Names(api_keys=frozenset({ISSUED.id}))
DAY = Names(schedules=frozenset({"day"}))


@dataclass(frozen=True)
class Step:
    """One call of a verb on a filled store, and what the next `desired_since` names.

    `bumps`: it makes a revision although it names nothing.
    """

    verb: str
    case: str
    call: Callable[[Registry, FencingToken], Awaitable[object]]
    names: Names = NOTHING
    bumps: bool = False


def step(verb: str, case: str, *arguments: Any, names: Names = NOTHING, **more: Any) -> Step:
    """A call whose arguments do not depend on the token."""
    bumps = more.pop("bumps", False)

    async def call(registry: Registry, token: FencingToken) -> object:
        given = {**more, "token": token} if more.get("token") else more
        return await getattr(registry, verb)(*arguments, **given)

    return Step(verb, case, call, names, bumps)


NEW = Names(frozenset({VersionKey("wanted", 2)}), numbers=frozenset({"wanted"}))
SEEN = ("wanted", "a" * 64, SETTINGS, "")
EVENT = Event(EventKind.TAKEOVER, 0.5, message="decides now")
PACK_KEY = FootprintKey("d" * 64, "torch/fp32", "cpu")
LIVE = Alias(FAILED.model, "live", (Target(1, 1000),), 600.0, 5.0)
ITS = frozenset({LIVE.key})
OTHER_DAY = replace(DAILY, cron="0 7 * * *")

STEPS = (
    step("create", "again"),
    step("register", "new", *SEEN, "", 1.0, names=NEW),
    step("register", "a number", *SEEN, "", 1.0, number=2, names=NEW),
    step("register", "a repeat", *SEEN, "request wanted", 101.0),
    step("add_build", "new", a_build(VersionKey("wanted+onnx-fp32-cpu", 1), WANTED),
         names=version(VersionKey("wanted+onnx-fp32-cpu", 1))),
    step("add_build", "a repeat", a_build(BUILD, PINNED)),
    step("add_build", "other images", a_build(BUILD, PINNED, calibration="c" * 64),
         names=version(BUILD)),
    step("add_build", "of an absent version", a_build(BUILD, ABSENT)),
    step("set_served", "other", PINNED, "cpu", SERVED, names=version(PINNED)),
    step("set_served", "the same", WANTED, "cpu", SERVED),
    step("set_served", "ended", WANTED, "cpu", None, names=version(WANTED)),
    step("set_served", "absent", ABSENT, "cpu", SERVED),
    step("delete", "wanted", [WANTED],
         names=Names(frozenset({WANTED}), frozenset({WANTED}))),
    step("delete", "unwanted", [WAITING, IMPORTING], names=version(WAITING, IMPORTING)),
    step("delete", "with its build", [PINNED, ABSENT],
         names=Names(frozenset({PINNED, BUILD}), frozenset({PINNED}))),
    step("delete", "absent", [ABSENT]),
    step("set_residency", "other", PINNED, STANDBY, names=version(PINNED)),
    step("set_residency", "the same", WANTED, STANDBY),
    step("set_residency", "absent", ABSENT, STANDBY),
    step("set_placement", "other", PINNED, PLACEMENT, names=version(PINNED)),
    step("set_placement", "the same", WANTED, PLACEMENT),
    step("set_placement", "absent", ABSENT, PLACEMENT),
    step("set_labels", "new", PINNED, {"line": "7"}, (), names=version(PINNED)),
    step("set_labels", "the same", WANTED, LABELS, ("absent",)),
    step("set_labels", "dropped", WANTED, {}, ("line",), names=version(WANTED)),
    step("set_labels", "absent", ABSENT, LABELS, ()),
    step("set_batching", "other", PINNED, "cpu", BATCHING, names=version(PINNED)),
    step("set_batching", "the same", WANTED, "cpu", BATCHING),
    step("set_batching", "ended", WANTED, "cpu", None, names=version(WANTED)),
    step("set_batching", "absent", ABSENT, "cpu", BATCHING),
    step("cordon", "another process", "w1", "second", names=Names(cordons=frozenset({"w1"}))),
    step("cordon", "the same", "w1", "first"),
    step("want", "new", a_want(WAITING), names=want(WAITING)),
    step("want", "more, fenced", a_want(WANTED, 3), token=True, names=want(WANTED)),
    step("want", "the same", a_want(WANTED, 2)),
    step("want", "the same, fenced", a_want(WANTED, 2), token=True),
    step("want", "a miss of less", a_want(WANTED, 1, source=WantSource.MISS)),
    step("want", "absent", a_want(ABSENT)),
    step("renew", "younger", WANTED, 99.0, names=want(WANTED)),
    step("renew", "as old", WANTED, 50.0),
    step("renew", "absent", ABSENT, 99.0),
    step("forget", "all", WANTED, names=want(WANTED)),
    step("forget", "lowered", WANTED, left=1, names=want(WANTED)),
    step("forget", "no lower", WANTED, left=5),
    step("forget", "fenced", WANTED, token=True, names=want(WANTED)),
    step("forget", "pinned, fenced", PINNED, token=True),
    step("forget", "absent", ABSENT),
    step("change_wants", "some", [a_want(WAITING), a_want(WANTED, 2)], [PINNED, ABSENT],
         names=want(WAITING, PINNED)),
    step("change_wants", "none", [a_want(WANTED, 2)], [ABSENT, WAITING], [PINNED, ABSENT]),
    step("change_wants", "put wins over drop", [a_want(WANTED, 3)], [WANTED],
         names=want(WANTED)),
    step("change_wants", "a standby ends", [], [WANTED], [WANTED, PINNED],
         names=Names(frozenset({WANTED}), frozenset({WANTED}))),
    step("put_schedule", "other", OTHER_DAY, names=DAY),
    step("put_schedule", "the same, later", replace(DAILY, since_unix_s=2.0)),
    step("delete_schedule", "there", "day", names=DAY),
    step("delete_schedule", "absent", "night"),
    step("note_schedule", "a moment", "day", 300.0, "late", names=DAY),
    step("note_schedule", "an earlier moment", "day", 100.0, "late"),
    step("put_api_key", "new", replace(ISSUED, id="k2"), names=Names(api_keys=frozenset({"k2"}))),
    step("change_api_key", "there", "k1", lambda key: replace(key, label="other"), names=KEY),
    step("change_api_key", "the same", "k1", lambda key: key),
    step("put_tenant", "new", Tenant("south"), names=Names(tenants=frozenset({"south"}))),
    step("put_tenant", "the same", NORTH),
    step("drop_tenant", "there", "north", names=Names(tenants=frozenset({"north"}))),
    step("drop_tenant", "absent", "south"),
    step("write", "a watch", lambda tx: put_watch(tx, replace(WATCHED, name="new")),
         names=Names(watches=frozenset({"new"}))),
    step("write", "the same watch", lambda tx: put_watch(tx, WATCHED)),
    step("write", "a watch goes", lambda tx: drop_watch(tx, WATCHED.name),
         names=Names(watches=frozenset({WATCHED.name}))),
    step("write", "a receiver", lambda tx: put_setting(tx, replace(HOOK, name="new")),
         names=Names(alerts=frozenset({"webhook/new"}))),
    step("write", "one without its secret", lambda tx: put_setting(tx, replace(HOOK, secret=""))),
    step("write", "a threshold of nothing", lambda tx: put_setting(tx, Threshold("A", "*"))),
    step("write", "a receiver goes", lambda tx: drop_settings(tx, (HOOK.key, "silence/none")),
         names=Names(alerts=frozenset({HOOK.key}))),
    step("put_alias", "new", replace(LIVE, name="next"), 0,
         names=Names(aliases=frozenset({AliasKey(FAILED.model, "next")}))),
    step("put_alias", "with wants, fenced", replace(LIVE, keep_s=5.0), 1,
         WantChanges((a_want(WAITING),), (WANTED,), (WANTED,)), token=True,
         names=Names(version(WANTED).versions, want(WAITING, WANTED).wants, aliases=ITS)),
    step("drop_alias", "there", LIVE.key, 1, names=Names(aliases=ITS)),
    step("change_rule", "new", "team/*", lambda rule: replace(rule, keep_versions=2),
         names=Names(rules=frozenset({"team/*"}))),
    step("change_rule", "the same", "pinned", lambda rule: rule),
    step("change_rule", "nothing left", "pinned", lambda rule: ModelRule(rule.pattern),
         names=Names(rules=frozenset({"pinned"}))),
    step("change_rule", "nothing new", "other", lambda rule: rule),
    step("note_validation", "new, fenced", PINNED, DID, token=True, names=version(PINNED)),
    step("note_validation", "absent", ABSENT, DID),
    step("drop_api_key", "there", "k1", names=KEY),
    step("drop_api_key", "absent", "k9"),
    step("change_api_key", "absent", "k9", lambda key: replace(key, label="other")),
    step("note_schedule", "absent", "night", 300.0, "late"),
    step("claim_import", "the oldest", "i2", HOUR_S, 1.0, names=version(WAITING)),
    step("report_progress", "further", "i1", IMPORTING, 0.75, "save", HOUR_S, 1.0,
         names=version(IMPORTING)),
    step("report_progress", "as far: the lease alone", "i1", IMPORTING, 0.5, "fuse", HOUR_S, 1.0,
         bumps=True),
    step("finish_import", "done", "i1", IMPORTING, PACK, SETTINGS,
         names=version(IMPORTING)),
    step("finish_import", "a repeat", "i1", WANTED, PACK, SETTINGS),
    step("fail_import", "failed", "i1", IMPORTING, "X", "why", names=version(IMPORTING)),
    step("fail_import", "a repeat", "i0", FAILED, "ARTIFACT_UNSAFE", "no"),
    step("register", "imported before", *SEEN, "", 1.0, imported=IMPORTED, names=NEW),
    step("take_lease", "again", "one", HOUR_S, None),
    Step("keep_lease", "held", lambda registry, token: registry.keep_lease(token, HOUR_S)),
    Step("drop_lease", "held", lambda registry, token: registry.drop_lease(token)),
    step("record_workers", "none", [], HOUR_S),
    step("drop_worker", "absent", "w1", "first"),
    step("record_footprint", "new", PACK_KEY, Footprint(1, 2)),
    step("append_event", "new", EVENT),
)  # fmt: skip


def test_every_method_of_the_registry_is_here() -> None:
    methods = {name for name in dir(Registry) if not name.startswith("_")}
    assert {step.verb for step in STEPS} == methods - READS


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.verb}: {step.case}")
async def test_what_a_verb_changed_is_told_and_nothing_else(case: Case, step: Step) -> None:
    token = await fill(case.registry)
    known = await case.other.desired()
    await step.call(case.registry, token)
    delta, now = await case.other.desired_since(known), await case.other.desired()
    assert delta is not None
    assert named(delta) == step.names
    assert now == applied(known, delta)
    writes = step.bumps or step.names != NOTHING
    assert now.revision - known.revision == int(writes)
    assert (now.mark != known.mark) is writes
    for map_ in MAPS:
        before, after = getattr(known, map_), getattr(delta, map_)
        assert [key for key in after if after[key] == before.get(key)] == []


MAPS = [field.name for field in fields(Names)]


def named(delta: DesiredDelta) -> Names:
    return Names(**{name: frozenset(getattr(delta, name)) for name in MAPS})


def applied(known: Desired, delta: DesiredDelta) -> Desired:
    """What a follower makes of a delta."""
    maps: dict[str, Any] = {
        name: merged(getattr(known, name), getattr(delta, name)) for name in MAPS
    }
    return replace(known, revision=delta.revision, mark=delta.mark, **maps)


def merged(before: Mapping[Key, Value], news: Mapping[Key, Value | None]) -> dict[Key, Value]:
    values = {**before, **news}
    return {key: value for key, value in values.items() if value is not None}
