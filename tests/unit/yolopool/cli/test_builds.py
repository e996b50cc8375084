"""`models build`: what serves from then on, where, and what is left as it was."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from yolopool.cli import builds
from yolopool.cli.main import app
from yolopool.client.model_records import Drift, Placement, ServedVariant
from yolopool.evaluation import build_comparison
from yolopool.evaluation.build_comparison import BuildComparison


@dataclass(frozen=True, slots=True)
class Row:
    """What `models build` reads of a version or a build."""

    name: str
    served: Mapping[str, ServedVariant] = field(default_factory=dict)
    builds: tuple[Any, ...] = ()
    placement: Placement = field(default_factory=Placement)
    state: str = "READY"
    class_names: tuple[str, ...] = ("circle",)


class Pool:
    """A client whose builds answer from one compute class. `ms`: the time of each build; the exact
    one takes 10.
    """

    def __init__(self, compute_class: str, **ms: float) -> None:
        self.compute_class, self.ms = compute_class, ms
        self.version = Row("a@1")
        self.rows: dict[str, Row] = {}
        self.set: list[str] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None: ...

    def model(self, name: str) -> Any:
        rows = tuple(self.rows.values())
        shown = replace(self.version, builds=rows)
        return type("Model", (), {"name": "a", "default_version": 1, "versions": (shown,)})

    def build(self, model: str, backend: str, precision: str, **more: Any) -> Row:
        name = f"a+{backend}-{precision}-cpu@1"
        return self.rows.setdefault(name, Row(name, placement=self.version.placement))

    def set_placement(self, name: str, placement: Placement) -> None:
        self.rows[name] = replace(self.rows[name], placement=placement)

    def unload(self, name: str, wait: bool = True) -> None: ...

    def delete(self, name: str) -> None: ...

    def set_variant(
        self, model: str, device: str, variant: str, drift: Drift | None, *, unchecked: bool = False
    ) -> Row:
        self.set.append(variant)
        checked = (drift.compute_class,) if drift is not None and drift.compute_class else ()
        served = {device: ServedVariant(variant, "", drift, checked, unchecked)} if variant else {}
        self.version = replace(self.version, served=served)
        return self.version

    def compare(self, client: Any, exact: Row, other: Row, *more: Any) -> BuildComparison:
        drift = Drift(images=1, objects=9, matched=9, compute_class=self.compute_class)
        precision = other.name.split("-")[1]
        return BuildComparison(drift, 10.0, self.ms.get(precision, 20.0))


def served(variant: str, *checked_on: str, unchecked: bool = False) -> dict[str, ServedVariant]:
    return {"cpu": ServedVariant(variant, "", None, checked_on, unchecked)}


def build(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str
) -> tuple[Result, str]:
    """The result, and what was printed with single spaces."""
    (folder / "0.png").touch()
    monkeypatch.setattr(builds, "Client", lambda address: pool)
    monkeypatch.setattr(build_comparison, "compare", pool.compare)
    done = CliRunner().invoke(app, ["models", "build", "a", "--images", str(folder), *words])
    return done, " ".join(done.output.split())


AUTO: Sequence[str] = ("--backend", "openvino")


@pytest.mark.parametrize(
    ("ms", "command"),
    [
        ({}, "yolopool models variant a@1 none --device cpu"),
        (
            {"bf16": 5.0},
            "yolopool models build a@1 --backend openvino --precision bf16 --device cpu "
            "--images FOLDER --serve",
        ),
    ],
)
def test_auto_takes_no_build_from_the_classes_that_it_did_not_try(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ms: dict[str, float], command: str
) -> None:
    pool = Pool("avx2", **ms)
    pool.version = Row("a@1", served=served("onnx/int8", "amx", "avx2"))
    done, said = build(pool, monkeypatch, tmp_path, *AUTO)
    assert (done.exit_code, pool.set) == (0, [])
    assert "a@1 stays served by onnx/int8 on cpu (amx, avx2), though on avx2" in said
    assert command in said
    done, _ = build(pool, monkeypatch, tmp_path, *AUTO, "--json")
    assert (json.loads(done.stdout)["serves"], pool.set) == ("", [])


def test_auto_leaves_what_serves_unchecked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pool = Pool("avx2", bf16=5.0)
    pool.version = Row("a@1", served=served("onnx/int8", unchecked=True))
    _, said = build(pool, monkeypatch, tmp_path, *AUTO)
    assert "stays served by onnx/int8 on cpu (every compute class)" in said
    assert not pool.set
    pool.version = Row("a@1", served=served("openvino/bf16", unchecked=True))
    build(pool, monkeypatch, tmp_path, *AUTO)
    assert pool.version.served["cpu"].unchecked


@pytest.mark.parametrize("held", [{}, served("onnx/int8", "avx2"), served("openvino/bf16", "amx")])
def test_auto_serves_the_best_where_no_other_class_loses_by_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, held: dict[str, ServedVariant]
) -> None:
    pool = Pool("avx2", bf16=5.0)
    pool.version = Row("a@1", served=held)
    done, said = build(pool, monkeypatch, tmp_path, *AUTO)
    assert (done.exit_code, pool.set) == (0, ["openvino/bf16"])
    assert "a@1 is now served by openvino/bf16 on cpu (avx2)" in said


def test_a_build_by_name_replaces_what_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pool = Pool("avx2", bf16=5.0)
    pool.version = Row("a@1", served=served("onnx/int8", "amx"))
    build(pool, monkeypatch, tmp_path, *AUTO, "--precision", "bf16", "--serve")
    assert pool.set == ["openvino/bf16"]


@pytest.mark.parametrize("more", [(), ("--precision", "bf16", "--serve")])
def test_a_build_serves_only_where_the_workers_say_their_class(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: Sequence[str]
) -> None:
    pool = Pool("", bf16=5.0)
    done, said = build(pool, monkeypatch, tmp_path, *AUTO, *more)
    assert done.exit_code == 8
    assert "the workers that answered do not say their compute class" in said
    assert "models variant a@1 openvino/bf16 --device cpu --unchecked" in said
    assert "served by" not in said
    assert not pool.set


def test_what_is_exact_serves_on_every_class(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pool = Pool("", fp32=5.0)
    _, said = build(pool, monkeypatch, tmp_path, *AUTO, "--precision", "fp32", "--serve")
    assert "now served by openvino/fp32 on cpu (every compute class)" in said


@pytest.mark.parametrize("own", [{}, {"compute-class": "bf16", "zone": "a"}])
def test_the_class_that_a_killed_run_left_is_not_restored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: dict[str, str]
) -> None:
    pool = Pool("avx2", bf16=5.0)
    pool.version = Row("a@1", placement=Placement(labels=own))
    exact, bf16 = (f"a+{name}-cpu@1" for name in ("torch-fp32", "openvino-bf16"))
    left = Placement(labels={**own, "compute-class": "amx"})
    pool.rows = {name: Row(name, placement=left) for name in (exact, bf16)}
    build(pool, monkeypatch, tmp_path, *AUTO, "--precision", "bf16", "--compute-class", "avx2")
    assert [pool.rows[name].placement.labels for name in (exact, bf16)] == [own, own]
