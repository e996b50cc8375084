"""The file of a whole fleet, which people and programs write."""

from pathlib import Path
from random import Random

from tests.fuzz import mutation
from tests.fuzz.target import Door, Pure, Target
from yolopool.client.fleet_file.declared import (
    Family,
    Fleet,
    Gate,
    Schedule,
    Settings,
    StoreRule,
    Version,
    Watch,
    keys,
)
from yolopool.client.fleet_file.parsing import parse_fleet
from yolopool.client.fleet_file.text.emitting import text_of
from yolopool.errors import FleetFileInvalid

_EXAMPLE = Path(__file__).parents[3] / "examples" / "fleet.yaml"
_SEEDS = (
    b"fleet: 1\nmodels:\n  - {name: a, artifact: a.pt, labels: {line: 7, no: no}}\n",
    b"fleet: 1\nmodels:\n- name: a/b\n  artifact: sha256:" + b"0" * 64 + b"\n  version: 3\n"
    b"  settings: &s {confidence: .5, image_sizes: [320, 640]}\n- name: a/b\n  artifact: x\n"
    b"  settings: *s\n  architecture_yaml: |\n    nc: 2\n  class_names: ['1', two]\n",
    b"fleet: 1\naliases:\n- {name: 'a:b', targets: {1: 950, newest: 50}}\nschedules:\n"
    b"- {name: n, cron: '0 6 * * *', load: [{model: a, placement: {pool: day}}], release: [b]}\n",
    b"fleet: 1\nfamilies:\n- {name: 'a:b', members: [{model: a, begins: dawn},"
    b" {model: c, begins: dusk}],\n"
    b"   place: {latitude: 52.5, longitude: -13}}\ngates: [{model: a, data: d, min_map50: .5}]\n"
    b"store: [{pattern: 'a/*', keep_versions: 3, store_bytes: 1000000000000000}]\n"
    b"watches: [{name: w, uri: 'file:///m', model: a, patterns: ['*.pt'], every_s: 1}]\n"
    b"schedules: [{name: n, sun: dusk-15m, place: {latitude: 1, longitude: 2}, release: [a]}]\n",
    b"fleet: 1\nmodels:\n- name: a\n  artifact: a.pt\n  builds:\n  - backend: openvino\n"
    b"    precision: int8\n    device: cpu\n    calibration: images\n    serve: true\n"
    b"    checks: [{compute_class: vnni, images: 8, largest_px: 1e-3, map50: 0.5}]\n",
    b"a0: &a [x, x, x]\na1: &b [*a, *a, *a, *a]\na2: &c [*b, *b, *b, *b]\na3: [*c, *c, *c, *c]\n",
)  # fmt: skip
_KINDS = (Fleet, Version, Settings, Schedule, Family, Gate, StoreRule, Watch)
_WORDS = (
    *(name.encode() for kind in _KINDS for name in keys(kind)),
    b": ", b"- ", b"&a ", b"*a", b"|\n", b"{", b"}", b"[", b"]", b"!!str ", b"---\n", b"~", b"<<",
)  # fmt: skip


def _file(data: bytes) -> str:
    """What is read is written as it was read."""
    fleet = parse_fleet(data, "fleet.yaml")
    assert parse_fleet(text_of(fleet).encode(), "written") == fleet
    return "ok"


def _changed(data: bytes, rng: Random, seeds: object) -> bytes:
    """Half of the time whole lines: most changes of bytes are no YAML."""
    if rng.random() < 0.5:
        return mutation.of_bytes(data, rng, _seeds(), _WORDS, 8192)
    lines = data.split(b"\n")
    others = rng.choice(_seeds()).split(b"\n")
    at = rng.randrange(len(lines))
    lines[at : at + rng.randrange(2)] = [rng.choice(others)]
    return b"\n".join(lines)[:8192]


def _seeds() -> list[bytes]:
    return [_EXAMPLE.read_bytes(), *_SEEDS]


def _open(folder: Path) -> Door:
    return Pure(_file, (FleetFileInvalid,))


TARGETS = {
    "fleet-files": Target(
        name="fleet-files",
        about="a fleet as a file",
        open=_open,
        seeds=_seeds,
        share=90,
        words=_WORDS,
        mutate=_changed,
        max_bytes=8192,
    )
}
