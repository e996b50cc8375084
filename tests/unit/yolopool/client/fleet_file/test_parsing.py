"""A fleet file's text to its records: what it says, and every fault with its line and key."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolopool.client.fleet_file.declared import (
    Alias,
    Batching,
    Build,
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
    keys,
)
from yolopool.client.fleet_file.parsing import parse_fleet
from yolopool.client.fleet_file.text import yaml_lines
from yolopool.client.fleet_file.text.emitting import text_of
from yolopool.client.fleet_file.text.reading import Faults, read_record
from yolopool.errors import FleetFileInvalid

ROOT = Path(__file__).parents[5]
FULL = """\
fleet: 1
prefix: line7/
models:
  - name: line7/bolts
    artifact: weights/bolts.pt
    version: 4
    settings: {image_size: 640, image_sizes: [320, 416], confidence: 0.3}
    class_names: [no, 7]
    labels: {line: 7, site: no, empty: ""}
    residency: {mode: on-demand, idle_release_s: 5}
    placement: {pool: day, labels: {gpu: l4}, max_replicas: 3, priority: bulk}
    batching:
      cuda: {max_batch: 16, preferred_sizes: [4, 16], max_delay_ms: 1.5, p99_goal_ms: 50}
    load: {replicas: 2, pin: true}
    builds:
      - {backend: openvino, precision: int8, device: cpu, calibration: images, serve: true}
  - name: line7/nuts
    artifact: sha256:%s
    renamed_classes: {0: nut}
aliases:
  - {name: "line7/bolts:stable", targets: {4: 950, newest: 50}, keep_s: 60}
families:
  - name: line7/any:size
    members: [{model: line7/bolts}, {model: line7/nuts}]
    within_s: 0.2
  - name: line7/any:light
    members: [{model: line7/bolts, begins: dawn+10m}, {model: line7/nuts, begins: dusk-10m}]
    place: {latitude: 52.5, longitude: 13.4}
gates:
  - {model: line7/bolts, data: gate, min_map50_95: 0.4}
store:
  - {pattern: line7/*, keep_versions: 5, store_bytes: 1000000000000000}
watches:
  - {name: bolts, uri: "file:///models/bolts", model: line7/bolts, patterns: ["*.pt"]}
schedules:
  - name: dusk
    sun: dusk-15m
    place: {latitude: -52.5, longitude: 13.4}
    release: [line7/bolts]
  - name: night
    cron: "0 19 * * *"
    load: [{model: line7/nuts, placement: {pool: night}}]
    release: ["line7/bolts:stable"]
""" % ("a" * 64)  # fmt: skip


def faults(text: str) -> list[str]:
    with pytest.raises(FleetFileInvalid) as caught:
        parse_fleet(text.encode(), "f.yaml")
    return [line.strip() for line in caught.value.message.splitlines()]


def test_what_a_file_says() -> None:
    fleet = parse_fleet(FULL.encode(), "f.yaml")
    assert fleet.models is not None
    bolts, nuts = fleet.models
    assert bolts == Version(
        name="line7/bolts",
        artifact="weights/bolts.pt",
        version=4,
        settings=Settings(image_size=640, image_sizes=(320, 416), confidence=0.3),
        class_names=("no", "7"),  # as written: YAML's own words are no business of a name
        labels={"line": "7", "site": "no", "empty": ""},
        residency=Residency(mode="on-demand", idle_release_s=5.0),
        placement=Placement(pool="day", labels={"gpu": "l4"}, max_replicas=3, priority="bulk"),
        batching={
            "cuda": Batching(
                max_batch=16, preferred_sizes=(4, 16), max_delay_ms=1.5, p99_goal_ms=50
            )
        },
        load=Load(replicas=2, pin=True),
        builds=(
            Build(
                backend="openvino", precision="int8", device="cpu", calibration="images", serve=True
            ),
        ),
    )
    assert (nuts.line, nuts.at["artifact"], bolts.batching["cuda"].at["max_batch"]) == (17, 18, 13)
    assert nuts.renamed_classes == {0: "nut"}
    assert fleet.aliases == (
        Alias(name="line7/bolts:stable", targets={"4": 950, "newest": 50}, keep_s=60.0),
    )
    light = (
        FamilyMember(model="line7/bolts", begins="dawn+10m"),
        FamilyMember(model="line7/nuts", begins="dusk-10m"),
    )
    assert fleet.families is not None
    assert fleet.families[1] == Family(
        name="line7/any:light", members=light, place=Place(latitude=52.5, longitude=13.4)
    )
    assert fleet.gates == (Gate(model="line7/bolts", data="gate", min_map50_95=0.4),)
    assert fleet.store == (StoreRule(pattern="line7/*", keep_versions=5, store_bytes=10**15),)
    assert fleet.watches is not None
    assert (fleet.watches[0].uri, fleet.watches[0].every_s) == ("file:///models/bolts", 30.0)
    assert fleet.schedules == (
        Schedule(
            name="dusk",
            sun="dusk-15m",
            place=Place(latitude=-52.5, longitude=13.4),
            release=("line7/bolts",),
        ),
        Schedule(
            name="night",
            cron="0 19 * * *",
            load=(Preparation(model="line7/nuts", placement=Placement(pool="night")),),
            release=("line7/bolts:stable",),
        ),
    )


def test_a_section_that_is_left_out_is_none() -> None:
    assert parse_fleet(b"fleet: 1\naliases: []\n", "f") == Fleet(fleet=1, aliases=())


SCHEDULE = "fleet: 1\nschedules: [{name: n, release: [a], %s}]"
FAMILY = "fleet: 1\nfamilies: [{name: 'any:x', members: [%s]}]"
MODEL = "fleet: 1\nmodels:\n  - name: a\n    artifact: a.pt\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "f.yaml: the file is empty: it begins with 'fleet: 1'"),
        ("[1]", '1: give keys, such as fleet: ...'),
        ("models: []", '1: fleet is missing: Format of this file.'),
        ("fleet: 2", '1: fleet: 2: give at most 1'),
        ("fleet: '1'", "1: fleet: '1': give a whole number, without quotes"),
        ("fleet: 1\nmodel: []", '2: model: is no key: did you mean models?'),
        ("fleet: 1\nfleet: 1", '2: fleet: is there twice, first in line 1'),
        ("fleet: 1\nmodels:", '2: models: has no value: give one, or leave the key out'),
        ("fleet: 1\nmodels: {}", "2: models: give a list: [a, b], or a line '- a' for each"),
        ("fleet: 1\nmodels:\n  - name: a",
         "3: models[0]: artifact is missing: Its file: a path from this file's folder, sha256:"),
        (MODEL + "    labels: [a]",
         "5: models[0].labels: give names and values: {a: b}, or a line 'a: b' each"),
        (MODEL + "    labels: {line: 7,\n      line: 8}",
         '6: models[0].labels.line: is there twice'),
        (MODEL + "    labels: {a b: 7}",
         "5: models[0].labels: 'a b=7' is no label: a label is NAME=VALUE, a name of 1 to"),
        (MODEL + "    batching:\n      gpu: {}",
         '6: models[0].batching.gpu: is not known: one of cpu, cuda, sim'),
        (MODEL + "    batching: {cuda: {max_batsh: 8}}",
         '5: models[0].batching.cuda.max_batsh: is no key: did you mean max_batch?'),
        (MODEL + "    load: {pin: yes}", "5: models[0].load.pin: 'yes': give true or false"),
        (MODEL + "    load: {replicas: 0}", '5: models[0].load.replicas: 0: give at least 1'),
        (MODEL + "    settings: {confidence: 1.5}",
         '5: models[0].settings.confidence: 1.5: give at most 1'),
        (MODEL + "    settings: {confidence: .nan}",
         "5: models[0].settings.confidence: '.nan': give a number, without quotes"),
        (MODEL + "    settings: {shape_policy: sqare}",
         "5: models[0].settings.shape_policy: 'sqare': did you mean square?"),
        (MODEL + "    settings: {image_height: 64}",
         '5: models[0].settings: image_height and image_width: give both, or none'),
        (MODEL + "    settings: 640",
         '5: models[0].settings: give keys, such as image_size: ...'),
        (MODEL + "    sha256: abc", '5: models[0].sha256: give 64 lower-case hexadecimal digits'),
        (MODEL + "    architecture: yolo11n.yaml",
         '3: models[0].class_names: an architecture needs the names of all classes'),
        (MODEL + "    builds: [{backend: onnx, precision: bf16, device: cpu}]",
         '5: models[0].builds[0].backend: onnx/bf16 is not made for cpu: torch/fp32,'),
        (MODEL + "    builds: [{backend: onnx, precision: int8, device: cpu}]",
         '5: models[0].builds[0].calibration: it is of int8, which needs it, and of'),
        (MODEL.replace("name: a", "name: A"),
         "3: models[0].name: 'A' is not a model name: a name is 'name' or 'team/name',"),
        (MODEL.replace("a.pt", "sha256:abc"),
         '4: models[0].artifact: give a path, or sha256: and 64 lower-case hexadecimal'),
        ("prefix: b/\n" + MODEL, "4: models[0].name: a does not begin with the file's prefix b/"),
        ("fleet: 1\naliases: [{name: a, targets: {1: 1000}}]",
         "2: aliases[0].name: 'a' is no alias: give model:name"),
        ("fleet: 1\naliases: [{name: 'a:b', targets: {1: 999}}]",
         '2: aliases[0].targets: the shares are 999 together, not 1000'),
        ("fleet: 1\naliases: [{name: 'a:b', targets: {v1: 1000}}]",
         "2: aliases[0].targets: 'v1': give the number of a version, or newest"),
        ("fleet: 1\nschedules: [{name: n, cron: '* * * * *'}]",
         '2: schedules[0].load: give models to load, to release, or both'),
        (SCHEDULE % "", "2: schedules[0].cron: give cron or sun, one of them"),
        (SCHEDULE % "cron: '* * * * *', sun: dusk, place: {latitude: 1, longitude: 2}",
         "2: schedules[0].cron: give cron or sun, one of them"),
        (SCHEDULE % "sun: dusk", "2: schedules[0].sun: the sun needs a place: give place with its"),
        (SCHEDULE % "cron: '* * * * *', place: {latitude: 1, longitude: 2}",
         "2: schedules[0].place: only what begins by the sun has a place: leave this out"),
        (SCHEDULE % "sun: dusk, place: {latitude: 91, longitude: 2}",
         "2: schedules[0].place.latitude: 91: give at most 90"),
        (FAMILY % "{model: a}", "2: families[0].members: give two or more"),
        (FAMILY % "{model: a}, {model: b, begins: '06:00'}",
         "2: families[0].members: say of each when it begins, or of none: then the size decides"),
        (FAMILY % "{model: a, begins: '6:00'}, {model: b, begins: '6:00'}",
         "2: families[0].members: two begin at the same time"),
        (FAMILY % "{model: a, begins: dawn}, {model: b, begins: dusk}",
         "2: families[0].members: the sun needs a place"),
        (FAMILY.replace("any:x", "any") % "{model: a}, {model: b}",
         "2: families[0].name: 'any' is no alias: give model:name"),
        (FAMILY % "{model: a}, {model: b}" + "\naliases: [{name: 'any:x', targets: {1: 1000}}]",
         "2: families[0]: any:x is an alias already, in line 3"),
        ("fleet: 1\ngates: [{model: a, data: d}]",
         "2: gates[0].min_map50_95: give min_map50_95 or min_map50, above 0"),
        ("fleet: 1\ngates: [{model: a, data: 'sha256:x', min_map50: 0.5}]",
         "2: gates[0].data: give a folder, a zip, or sha256: and 64"),
        ("fleet: 1\nprefix: b/\ngates: [{model: a, data: d, min_map50: 0.5}]",
         "3: gates[0].model: a does not begin with the file's prefix b/"),
        ("fleet: 1\nstore: [{pattern: a}]",
         "2: store[0].pattern: give keep_versions or store_bytes, above 0"),
        ("fleet: 1\nstore: [{pattern: a, keep_versions: 1},\n{pattern: a, keep_versions: 2}]",
         "3: store[1]: a is there already, in line 2"),
        ("fleet: 1\nwatches: [{name: w, uri: /models, model: a}]",
         "2: watches[0].uri: give file:///folder/ or s3://bucket/prefix/"),
        ("fleet: 1\nwatches: [{name: w, uri: 'file:///m', model: a, profile: p}]",
         "2: watches[0].profile: only s3:// has credentials"),
        ("fleet: 1\nx: \xff".encode("latin-1").decode("latin-1"),
         '2: x: is no key: one of aliases, families, fleet, gates, models, prefix, '
         'schedules, store, watches'),
    ],
)  # fmt: skip
def test_a_fault_has_its_line_and_key(text: str, said: str) -> None:
    (line,) = faults(text)
    assert line.startswith(f"f.yaml:{said}" if said[0].isdigit() else said)


def test_every_fault_is_told_in_order() -> None:
    entries = "".join(f"  - {{name: a, artifact: a.pt, bad{n}: 1}}\n" for n in range(30))
    told = faults(f"fleet: 1\nmodels:\n{entries}")
    assert len(told) == 21
    assert told[0].startswith("f.yaml:3: models[0].bad0: is no key")
    assert told[-1] == "and 10 more"


def test_versions_names_and_serving_builds_are_there_once() -> None:
    assert faults(MODEL + "    version: 3\n  - {name: a, artifact: b.pt, version: 3}\n") == [
        "f.yaml:6: models[1]: a@3 is there already, in line 3"
    ]
    twice = "[{backend: onnx, precision: fp32, device: cpu, serve: true}, "
    twice += "{backend: openvino, precision: fp32, device: cpu, serve: true}]"
    assert faults(MODEL + f"    builds: {twice}") == [
        "f.yaml:5: models[0].builds: two serve on one kind of device: let one serve"
    ]


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
LINES = st.sampled_from(
    ["", "a: b\n", "one\ntwo\n", " x\n\ty\n", "no", "7", "1e3", "~", "- a", "#"]
)


def values(hint: Any, about: Any) -> Any:
    """Values of a key, whatever they mean together."""
    others = [one for one in get_args(hint) if one is not NoneType]
    if NoneType in get_args(hint):
        return st.none() | values(others[0], about)
    if is_dataclass(hint):
        return records(hint)
    if get_origin(hint) is tuple:
        return st.lists(values(others[0], about), max_size=3).map(tuple)
    if len(others) == 2:
        names = st.sampled_from(about["choices"]) if about["choices"] else TEXTS
        names = st.integers(0, 99) if others[0] is int else names
        return st.dictionaries(names, values(others[1], {**about, "choices": ()}), max_size=3)
    if about["choices"]:
        return st.sampled_from(about["choices"])
    least, most = about["least"] or 0, about["most"] or 10**9
    return {
        str: TEXTS | LINES,
        bool: st.booleans(),
        int: st.integers(int(least), int(most)),
        float: st.floats(least, most, allow_nan=False),
    }[hint]


def records(kind: Any) -> Any:
    hints = get_type_hints(kind)
    return st.builds(
        kind, **{name: values(hints[name], one.metadata) for name, one in keys(kind).items()}
    )


@settings(max_examples=30)
@given(records(Fleet))
def test_what_is_written_is_read_back(fleet: Fleet) -> None:
    node = yaml_lines.parse(text_of(fleet, "a comment"))
    assert node is not None
    found = Faults()
    assert (read_record(Fleet, node, "", found), found.found) == (fleet, [])


def test_every_key_says_what_it_is() -> None:
    kinds = (
        Fleet, Version, Settings, Placement, Residency, Batching, Build, Schedule, Alias, Place,
        Family, FamilyMember, Gate, StoreRule, Watch,
    )  # fmt: skip
    for kind in kinds:
        assert all(one.metadata["doc"].endswith(".") for one in keys(kind).values())
        assert {one.name for one in fields(kind)} - {*keys(kind)} == {"at"}
    assert replace(Settings(), at={"": 3}) == Settings()
