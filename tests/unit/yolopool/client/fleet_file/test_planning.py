"""From a file and what a pool has to what is to be done: which version it is, what differs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from yolopool.client.fleet_file.alias_plan import DeleteAlias, SetAlias
from yolopool.client.fleet_file.declared import (
    Alias,
    Batching,
    Build,
    Check,
    Family,
    FamilyMember,
    Fleet,
    Gate,
    Load,
    Place,
    Placement,
    Preparation,
    Residency,
    Schedule,
    Settings,
    StoreRule,
    Version,
    Watch,
)
from yolopool.client.fleet_file.fleet_steps import (
    LoadVersion,
    MakeBuild,
    ServeBuild,
    SetBatching,
    SetLabels,
    SetPlacement,
    SetResidency,
)
from yolopool.client.fleet_file.planning import Entry, Plan, changes, plan
from yolopool.client.fleet_file.present import Present, PresentBuild, PresentVersion, Served
from yolopool.client.fleet_file.sections.section_plan import SCHEDULES, DeleteRecord, SetRecord
from yolopool.client.fleet_file.text.reading import Faults
from yolopool.client.rollout import alias_records

PRESENT = ("aliases", "rolling", "families", "gates", "store", "watches", "schedules")
OLD, NEW = "a" * 64, "b" * 64


def entry(name: str = "bolts", digest: str = NEW, line: int = 1, **more: Any) -> Entry:
    return Entry(Version(name=name, artifact=f"{name}.pt", at={"": line}, **more), digest)


def there(number: int = 1, name: str = "bolts", digest: str = NEW, **more: Any) -> PresentVersion:
    fields: dict[str, Any] = {"resolved": Settings(image_size=640), "settings": Settings(), **more}
    return PresentVersion(name, number, fields.pop("state", "READY"), digest, **fields)


def planned(
    entries: Sequence[Entry], *versions: PresentVersion, prune: bool = False, **sections: Any
) -> tuple[Plan, list[str]]:
    """The plan, and the faults as lines."""
    found = {name: sections.pop(f"present_{name}", None) for name in PRESENT}
    present = {name: one for name, one in found.items() if one is not None}
    models = tuple(one.version for one in entries)
    fleet = Fleet(fleet=1, models=sections.pop("models", models), **sections)
    faults = Faults()
    made = plan(fleet, entries, Present(versions, **present), faults, prune=prune)
    return made, [one.said("f") for one in faults.found]


def refs(made: Plan) -> list[str]:
    return [one.present.ref if one.present is not None else "new" for one in made.versions]


# --- which version an entry is --------------------------------------------------------------------


def test_a_version_is_told_by_its_bytes_and_what_it_was_registered_with() -> None:
    same = there(2, settings=Settings(confidence=0.3), class_names=("bolt",))
    others = (
        there(1, digest=OLD, settings=Settings(confidence=0.3), class_names=("bolt",)),
        there(3, settings=Settings(confidence=0.31), class_names=("bolt",)),
        there(4, settings=Settings(confidence=0.3)),
        there(5, settings=Settings(confidence=0.3), class_names=("bolt",), architecture_sha256="c"),
        there(2, "nuts", settings=Settings(confidence=0.3), class_names=("bolt",)),
    )
    wanted = entry(settings=Settings(confidence=0.3), class_names=("bolt",))
    made, faults = planned([wanted], same, *others)
    assert (refs(made), faults) == (["bolts@2"], [])
    assert made.versions[0].steps == ()
    assert refs(planned([wanted], *others)[0]) == ["new"]


URI = "s3://models/bolts.pt"


@pytest.mark.parametrize(
    ("digest", "present", "same"),
    [
        ("", {"uri": URI}, True),
        ("", {"uri": URI, "digest": ""}, True),  # it is being fetched
        ("", {"uri": f"{URI}.old"}, False),
        ("", {}, False),
        (NEW, {"uri": URI}, True),
        (NEW, {"uri": URI, "digest": ""}, True),
        (NEW, {"uri": URI, "digest": OLD}, False),
        (NEW, {}, True),  # the same bytes were uploaded
    ],
)
def test_a_uri_is_told_by_its_digest_or_its_text(
    digest: str, present: Mapping[str, Any], same: bool
) -> None:
    asked = Entry(Version(name="bolts", artifact=URI, sha256=digest), digest)
    assert refs(planned([asked], there(**present))[0]) == ["bolts@1" if same else "new"]


def test_numbers_are_those_of_the_messages() -> None:
    """0.3 has no exact form in 32 bits, and the sizes have an order."""
    kept = there(settings=Settings(confidence=0.1, image_size=640, image_sizes=(320, 416)))
    asked = Settings(confidence=0.10000000001, image_size=640, image_sizes=(416, 640, 320))
    assert refs(planned([entry(settings=asked)], kept)[0]) == ["bolts@1"]
    sides = there(settings=Settings(image_height=384, image_width=640))
    same = Settings(image_size=640, image_height=384, image_width=640)
    assert refs(planned([entry(settings=same)], sides)[0]) == ["bolts@1"]


def test_of_an_earlier_release_what_was_asked_for_has_to_hold() -> None:
    old = there(settings=None, resolved=Settings(image_size=640, confidence=0.25))
    assert refs(planned([entry(settings=Settings(confidence=0.25))], old)[0]) == ["bolts@1"]
    assert refs(planned([entry(settings=Settings(confidence=0.5))], old)[0]) == ["new"]


def test_the_newest_of_several_is_meant_and_each_once() -> None:
    versions = (there(1), there(2), there(3))
    assert refs(planned([entry()], *versions)[0]) == ["bolts@3"]
    made, faults = planned([entry(), entry(line=2, version=3)], *versions)
    assert (refs(made), faults) == (["bolts@2", "bolts@3"], [])


def test_two_that_nothing_tells_apart_are_a_fault() -> None:
    _, faults = planned([entry(line=3), entry(line=9)], there(1), there(2))
    assert faults == ["f:9: models[1]: the same version of bolts is in line 3: give each once"]


def test_a_number_is_that_version_or_new() -> None:
    numbered = entry(version=7)
    assert refs(planned([numbered], there(3))[0]) == ["new"]
    assert refs(planned([numbered], there(7), there(8))[0]) == ["bolts@7"]
    _, faults = planned([numbered], there(7, digest=OLD))
    assert faults == [
        f"f:1: models[0].version: bolts@7 is there and differs (its file is {OLD[:12]}, not "
        f"{NEW[:12]}): versions never change, give another number"
    ]
    _, faults = planned([numbered], there(9))
    assert faults == [
        "f:1: models[0].version: bolts has had versions up to 9: give a higher number"
    ]


# --- what is to change ----------------------------------------------------------------------------

CHECK = Check(compute_class="avx2", images=8, objects=20, matched=20, largest_px=0.1)
ONNX = Build(backend="onnx", precision="fp32", device="cpu", serve=True)
INT8 = Build(
    backend="openvino", precision="int8", device="cpu", calibration="images", serve=True,
    checks=(CHECK,),
)  # fmt: skip
MADE = PresentBuild("bolts+onnx-fp32-cpu@1", "READY", "")
DAY = Placement(pool="day")
BATCH = Batching(max_batch=8, max_delay_ms=0.1)


@pytest.mark.parametrize(
    ("declared", "present", "steps"),
    [
        ({}, {}, []),
        ({"labels": {"line": "7"}}, {"labels": {"line": "6", "old": "x"}},
         [SetLabels({"line": "7"}, ("old",))]),
        ({}, {"labels": {"line": "6"}}, [SetLabels({}, ("line",))]),
        ({"placement": DAY}, {}, [SetPlacement(Placement(), DAY)]),
        ({}, {"placement": DAY}, [SetPlacement(DAY, Placement())]),
        ({"batching": {"cpu": BATCH}}, {"batching": {"cpu": BATCH}}, []),
        ({"batching": {"cpu": BATCH}}, {"batching": {"cuda": BATCH}},
         [SetBatching("cpu", None, BATCH), SetBatching("cuda", BATCH, None)]),
        ({"residency": Residency(mode="hot-standby")}, {},
         [SetResidency(Residency(), Residency(mode="hot-standby"))]),
        ({}, {"wanted_replicas": 3, "pinned": True}, []),  # without load it stays as it is
        ({"load": Load(replicas=2)}, {"wanted_replicas": 1}, [LoadVersion(2, False)]),
        ({"load": Load(pin=True)}, {"wanted_replicas": 1}, [LoadVersion(1, True)]),
        ({"load": Load(pin=True)}, {"wanted_replicas": 1, "pinned": True}, []),
        ({"load": Load(), "residency": Residency(mode="hot-standby")},
         {"wanted_replicas": 1, "pinned": True, "residency": Residency(mode="hot-standby")}, []),
        ({"builds": (ONNX,)}, {},
         [MakeBuild(ONNX, "", "new"), ServeBuild("cpu", "", "onnx/fp32")]),
        ({"builds": (ONNX,)},
         {"builds": {ONNX.slot: MADE}, "served": {"cpu": Served("onnx/fp32", False)}}, []),
        ({}, {"builds": {ONNX.slot: MADE}, "served": {"cpu": Served("onnx/fp32", False)}},
         [ServeBuild("cpu", "onnx/fp32", "")]),
        ({"builds": (INT8,)}, {"builds": {INT8.slot: replace(MADE, calibration=OLD)}},
         [MakeBuild(INT8, NEW, "of other calibration images"),
          ServeBuild("cpu", "", "openvino/int8", False, (CHECK,))]),
        ({"builds": (INT8,)}, {"builds": {INT8.slot: replace(MADE, calibration=NEW)},
                               "served": {"cpu": Served("openvino/int8", False, (CHECK,))}}, []),
        ({"builds": (replace(INT8, unchecked=True),)},
         {"builds": {INT8.slot: replace(MADE, calibration=NEW)},
          "served": {"cpu": Served("openvino/int8", False, (CHECK,))}},
         [ServeBuild("cpu", "openvino/int8", "openvino/int8", True, (CHECK,))]),
    ],
)  # fmt: skip
def test_what_differs_is_changed(
    declared: Mapping[str, Any], present: Mapping[str, Any], steps: list[Any]
) -> None:
    asked = replace(entry(**declared), calibrations={INT8.slot: NEW})
    assert list(changes(asked, there(**present))) == steps
    assert all(step.words for step in steps)


def test_a_failed_import_is_not_tried_again() -> None:
    made, faults = planned([entry(load=Load())], there(state="FAILED", why="ARTIFACT_UNSAFE: no"))
    assert faults == []
    assert (made.versions[0].failed, made.versions[0].steps) == ("ARTIFACT_UNSAFE: no", ())
    assert made.is_empty


# --- what the file does not name, and the other sections ------------------------------------------


def test_what_is_not_named_stays_unless_it_is_pruned() -> None:
    versions = (there(1, digest=OLD), there(2, builds={ONNX.slot: MADE}), there(4, "nuts"))
    unnamed = ("bolts@1", "bolts+onnx-fp32-cpu@1", "nuts@4")
    kept, _ = planned([entry()], *versions)
    assert (kept.deleted, kept.left, kept.is_empty) == ((), unnamed, True)
    pruned, _ = planned([entry()], *versions, prune=True)
    assert (pruned.deleted, pruned.left) == (unnamed, ())
    loaded, _ = planned([], there(3, pinned=True), there(5), prune=True)
    assert (loaded.deleted, loaded.pinned) == (("bolts@3", "bolts@5"), frozenset({"bolts@3"}))
    without, _ = planned([], *versions, prune=True, models=None)
    assert without == Plan(())


NIGHT = Schedule(name="night", cron="0 19 * * *", load=(Preparation(model="line7/a"),))


def test_schedules_are_set_and_pruned_within_the_prefix() -> None:
    other = replace(NIGHT, name="mixed", release=("line8/b",))
    old = replace(NIGHT, name="old")
    later = replace(NIGHT, cron="0 20 * * *", at={"": 5})
    made, _ = planned(
        [], prune=True, prefix="line7/", schedules=(later,),
        present_schedules=(NIGHT, old, other),
    )  # fmt: skip
    assert made.records == (
        SetRecord(SCHEDULES, NIGHT, later), DeleteRecord(SCHEDULES, "old"),
    )  # fmt: skip
    (moved, _) = made.records
    assert isinstance(moved, SetRecord)
    assert moved.words == 'cron "0 19 * * *" -> "0 20 * * *"'
    assert moved.after.line == 5  # for the error of a call that fails
    same, _ = planned([], schedules=(NIGHT,), present_schedules=(NIGHT, old))
    assert (same.records, same.left) == ((), ("schedule old",))


SIZES = Family(name="any:x", members=(FamilyMember(model="n"), FamilyMember(model="s")))
GATE = Gate(model="line7/a", data=f"sha256:{NEW}", min_map50=0.5)
RULE = StoreRule(pattern="line7/*", keep_versions=3)
WATCH = Watch(name="w", uri="file:///m/", model="line7/a")
DUSK = Schedule(
    name="d", sun="dusk", place=Place(latitude=52.5, longitude=13.4), release=("line7/a",)
)


@pytest.mark.parametrize(
    ("section", "there", "after", "new", "words"),
    [
        ("families", SIZES, replace(SIZES, within_s=0.5),
         'members ["n", "s"], within_s 0.5', "within_s 0 -> 0.5"),
        ("gates", GATE, replace(GATE, min_map50=0.75),
         f'data "sha256:{NEW}", min_map50 0.75', "min_map50 0.5 -> 0.75"),
        ("store", RULE, replace(RULE, store_bytes=10**9),
         "keep_versions 3, store_bytes 1000000000", "store_bytes 0 -> 1000000000"),
        ("watches", WATCH, replace(WATCH, uri="file:///other"),
         'uri "file:///other/", model "line7/a"', 'uri "file:///m/" -> "file:///other/"'),
        ("schedules", DUSK, replace(DUSK, sun="dusk-15m"),
         'sun "dusk-15m", place {latitude 52.5, longitude 13.4}, release ["line7/a"]',
         'sun "dusk" -> "dusk-15m"'),
    ],
)  # fmt: skip
def test_records_are_made_changed_and_pruned(
    section: str, there: Any, after: Any, new: str, words: str
) -> None:
    def steps(*declared: Any, present: Sequence[Any], prune: bool = False) -> Plan:
        sections = {section: declared, f"present_{section}": tuple(present)}
        return planned([], prune=prune, **sections)[0]

    assert steps(there, present=[there]).is_empty
    assert [
        one.words for one in steps(after, present=[]).records if isinstance(one, SetRecord)
    ] == [new]
    (changed,) = steps(after, present=[there]).records
    assert isinstance(changed, SetRecord)
    assert (changed.before, changed.words) == (there, words)
    kept = steps(present=[there])
    assert (kept.records, len(kept.left)) == ((), 1)
    (dropped,) = steps(present=[there], prune=True).records
    assert dropped == DeleteRecord(dropped.section, dropped.section.told(there))
    only: dict[str, Any] = {f"present_{section}": (there,)}
    assert planned([], **only)[0] == Plan(())  # not looked at


def test_a_watch_is_as_the_pool_keeps_it() -> None:
    asked = replace(WATCH, uri="file:///m", patterns=("*.pt", "*.onnx"))
    assert planned([], watches=(asked,), present_watches=(WATCH,))[0].is_empty


def test_what_a_watch_registered_is_not_pruned() -> None:
    versions = (there(1, "line7/a"), there(2, "line7/a"), there(1, "line7/b"))
    made, _ = planned([], *versions, prune=True, watches=(WATCH,), present_watches=(WATCH,))
    assert made.deleted == ("line7/b@1",)


def test_a_rollout_that_runs_goes_on_unless_its_stable_version_is_another() -> None:
    rolling = an_alias({2: 900, 3: 100})
    sections: dict[str, Any] = {
        "present_aliases": (rolling,), "present_rolling": {"bolts:stable": 2},
    }  # fmt: skip
    assert planned([], there(2), there(3), aliases=(STABLE,), **sections)[0].aliases == ()
    other = replace(STABLE, targets={"3": 1000})
    made, _ = planned([], there(2), there(3), aliases=(other,), **sections)
    assert made.aliases == (SetAlias(rolling, other, {3: 1000}),)


def test_a_family_is_no_alias_of_versions() -> None:
    family = alias_records.Alias("a:x", {}, 600.0, 0.0, 1, None, {}, {}, (), family=("n", "s"))
    made, _ = planned([], prune=True, aliases=(), present_aliases=(family,))
    assert made.aliases == ()


def an_alias(targets: Mapping[int, int], **more: Any) -> alias_records.Alias:
    return alias_records.Alias(
        "bolts:stable", targets, more.get("keep_s", 600.0), 0.0, 3, more.get("switch"), {}, {}, ()
    )


STABLE = Alias(name="bolts:stable", targets={"2": 1000})


@pytest.mark.parametrize(
    ("declared", "present", "words"),
    [
        (STABLE, None, "@2"),
        (STABLE, an_alias({2: 1000}), None),
        (STABLE, an_alias({1: 1000}), "@1 -> @2"),
        (STABLE, an_alias({2: 1000}, keep_s=30.0), "@2 -> @2, keep_s 30 -> 600"),
        (replace(STABLE, targets={"newest": 1000}), an_alias({3: 1000}), None),
        (replace(STABLE, targets={"2": 950, "newest": 50}), an_alias({2: 1000}),
         "@2 -> @2 95 %, @3 5 %"),
        (replace(STABLE, targets={"3": 950, "newest": 50}), an_alias({3: 1000}), None),
    ],
)  # fmt: skip
def test_an_alias_is_moved_where_it_means_another(
    declared: Alias, present: alias_records.Alias | None, words: str | None
) -> None:
    versions = (there(2, digest=OLD), there(3), there(4, state="FAILED", digest="c" * 64))
    held = () if present is None else (present,)
    made, _ = planned([entry()], *versions, aliases=(declared,), present_aliases=held)
    assert [one.words for one in made.aliases if isinstance(one, SetAlias)] == (
        [words] if words is not None else []
    )


def test_the_newest_is_also_one_that_is_registered_now() -> None:
    newest = replace(STABLE, targets={"newest": 1000})
    made, _ = planned(
        [entry(digest=OLD)], there(3), aliases=(newest,), present_aliases=(an_alias({3: 1000}),)
    )
    assert made.aliases == (SetAlias(an_alias({3: 1000}), newest, None),)
    dropped, _ = planned([], prune=True, aliases=(), present_aliases=(an_alias({3: 1000}),))
    assert dropped.aliases == (DeleteAlias("bolts:stable", 3),)
