"""Trackers of training runs. MLflow is the real library over a store of files. Weights & Biases has
a stand-in at its library's door, since its server can't be reached from a test: what the stand-in
has is all that is used of `wandb.Api`, as its reference documents it.
"""

import json
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from control_plane.sources import mlflow_run
from control_plane.sources.opening import Sources
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import SCHEMES
from control_plane.types.sources.source import Source
from tests.contract.broken_server import Turn, broken_server
from yolopool import errors


def sources(folder: Path, *roots: Path) -> Sources:
    return Sources(SourceRules(SCHEMES, roots=tuple(map(str, roots))), {}, folder, 10**6)


def read(opened: Any) -> bytes:
    _, parts = opened.read(0)
    data = b"".join(parts)
    opened.close()
    return data


# Its import alone takes seconds.
OF_MLFLOW = pytest.mark.matrix(sample=0, of="models of MLflow")

# --- MLflow -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A run with a model file, registered as version 1 of `parts`, in the stage Production and
    with the alias champion; another run with two model files.
    """
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", (folder / "runs").as_uri())
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        client = MlflowClient()
        run = client.create_run("0", run_name="night")
        client.log_param(run.info.run_id, "epochs", 100)
        client.log_metric(run.info.run_id, "metrics/mAP50-95", 0.61)
        client.set_tag(run.info.run_id, "line", "7")
        (folder / "best.pt").write_bytes(b"weights")
        client.log_artifact(run.info.run_id, str(folder / "best.pt"), "weights")
        client.create_registered_model("parts")
        source = f"{run.info.artifact_uri}/weights"
        client.create_model_version("parts", source, run.info.run_id)
        client.transition_model_version_stage("parts", "1", "Production")
        client.set_registered_model_alias("parts", "champion", "1")
        several = client.create_run("0")
        for name in ("a.onnx", "b.onnx"):
            (folder / name).write_bytes(name.encode())
            client.log_artifact(several.info.run_id, str(folder / name))
        yield SimpleNamespace(
            folder=folder, run=run.info.run_id, several=several.info.run_id, client=client
        )


@OF_MLFLOW
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "uri",
    [
        "models:/parts/1", "models:/parts/latest", "models:/parts/production",
        "models:/parts@champion", "runs:/{run}/weights/best.pt", "runs:/{run}/weights",
        "runs:/{run}",
    ],
)  # fmt: skip
def test_a_model_of_mlflow_is_read_with_what_its_run_logged(
    uri: str, tracked: SimpleNamespace, tmp_path: Path
) -> None:
    opened = sources(tmp_path, tracked.folder).open(Source(uri.format(run=tracked.run)))
    assert opened.facts.name == "best.pt"
    kept = json.loads(opened.facts.metadata["mlflow.json"])
    assert kept["params"] == {"epochs": "100"}
    assert kept["metrics"] == {"metrics/mAP50-95": 0.61}
    assert kept["tags"] == {"line": "7"}
    assert (kept["run_id"], kept["run_name"]) == (tracked.run, "night")
    assert read(opened) == b"weights"


@OF_MLFLOW
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("models:/none/1", errors.SourceNotFound),
        ("models:/parts/7", errors.SourceNotFound),
        ("models:/parts/Staging", errors.SourceNotFound),
        ("models:/parts@none", errors.SourceNotFound),
        ("runs:/none/best.pt", errors.SourceNotFound),
        ("runs:/{run}/none.pt", errors.SourceNotFound),
        ("runs:/{several}", errors.SourceInvalid),
    ],
)
def test_what_mlflow_does_not_have_is_told(
    uri: str, error: type[errors.YolopoolError], tracked: SimpleNamespace, tmp_path: Path
) -> None:
    text = uri.format(run=tracked.run, several=tracked.several)
    with pytest.raises(error):
        sources(tmp_path, tracked.folder).open(Source(text))


@OF_MLFLOW
def test_where_mlflow_leads_is_read_by_the_same_rules(
    tracked: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(errors.SourceRefused):
        sources(tmp_path).open(Source(f"runs:/{tracked.run}/weights/best.pt"))


@OF_MLFLOW
@pytest.mark.usefixtures("tracked")
def test_what_the_tracking_server_keeps_itself_is_asked_of_it_with_its_login(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server whose artifacts are behind it (mlflow-artifacts:). Of it the test has one path only,
    that of a file; who says where the file is, is a stand-in of the client.
    """
    run = SimpleNamespace(
        info=SimpleNamespace(artifact_uri="mlflow-artifacts:/0/r/artifacts", run_name="night"),
        data=SimpleNamespace(params={}, metrics={}, tags={}),
    )
    monkeypatch.setattr(mlflow_run, "_client", lambda: SimpleNamespace(get_run=lambda _: run))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    with broken_server(Turn(b"weights")) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        opened = sources(tmp_path).open(Source("runs:/r/best.pt"))
        assert read(opened) == b"weights"
    path = "/api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/best.pt"
    assert [(one.path, one.login) for one in server.asked] == [(path, "Basic bWU6aHVudGVyMg==")]


def test_no_server_that_a_run_names_is_asked_for_a_list(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The library would send it the tracking server's login."""
    with broken_server(Turn(b"{}")) as server:
        place = f"{server.url}/mlflow-artifacts/artifacts"
        run = SimpleNamespace(
            info=SimpleNamespace(artifact_uri=place, run_name="night"),
            data=SimpleNamespace(params={}, metrics={}, tags={}),
        )
        monkeypatch.setattr(mlflow_run, "_client", lambda: SimpleNamespace(get_run=lambda _: run))
        monkeypatch.setattr(mlflow_run, "_tracker", lambda: "https://mlflow.example.com")
        rules = SourceRules(SCHEMES, private_networks=(ip_network("127.0.0.0/8"),))
        with pytest.raises(errors.SourceInvalid):
            Sources(rules, {}, tmp_path, 10**6).open(Source("runs:/r/weights"))
        assert not server.asked


# --- Weights & Biases -------------------------------------------------------------------------


class Entry:
    def __init__(self, path: str, data: bytes, ref: str | None = None) -> None:
        self.path, self._data = path, data
        self.ref, self.size = ref, len(data)

    def download(self, root: str) -> str:
        place = Path(root, self.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(self._data)
        return str(place)


class Artifact:
    qualified_name, version = "me/parts/model:v3", "v3"
    metadata = {"dataset": "line7"}  # noqa: RUF012 - as the library has it

    def __init__(self, *entries: tuple[str, Entry]) -> None:
        self.manifest = SimpleNamespace(entries=dict(entries))

    def get_entry(self, path: str) -> Entry:
        entry: Entry = self.manifest.entries[path]
        return entry

    def logged_by(self) -> Any:
        return SimpleNamespace(
            id="r1", name="night", config={"epochs": 100, "_wandb": {}}, summary={"map": 0.6}
        )


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> dict[str, Artifact]:
    held: dict[str, Artifact] = {}

    def artifact(name: str) -> Artifact:
        if name not in held:
            raise ValueError(f"artifact '{name}' not found")
        return held[name]

    api = SimpleNamespace(Api=lambda timeout: SimpleNamespace(artifact=artifact))
    monkeypatch.setitem(sys.modules, "wandb", api)
    return held


def test_an_artifact_is_read_with_what_its_run_logged(
    wandb: dict[str, Artifact], tmp_path: Path
) -> None:
    wandb["me/parts/model:best"] = Artifact(
        ("notes.md", Entry("notes.md", b"")), ("w/best.pt", Entry("w/best.pt", b"weights"))
    )
    for uri in ("me/parts/model:best", "me/parts/model:best/w/best.pt", "me/parts/model:best/w"):
        opened = sources(tmp_path).open(Source(f"wandb-artifact://{uri}"))
        kept = json.loads(opened.facts.metadata["wandb.json"])
        assert kept["params"] == {"epochs": 100}
        assert (kept["metrics"], kept["version"]) == ({"map": 0.6}, "v3")
        assert read(opened) == b"weights"
        assert list(tmp_path.iterdir()) == [], "what was fetched is removed"


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (Entry("a.pt", b"x" * 2_000_000), errors.ArtifactTooLarge),
        (Entry("a.pt", b"", ref="s3://elsewhere/a.pt"), errors.SourceInvalid),
        (Entry("../../a.pt", b"x"), errors.SourceInvalid),
    ],
)
def test_an_artifact_that_is_not_what_it_should_be_is_refused(
    entry: Entry, error: type[errors.YolopoolError], wandb: dict[str, Artifact], tmp_path: Path
) -> None:
    wandb["me/parts/model:v1"] = Artifact((entry.path, entry))
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    with pytest.raises(error):
        sources(folder).open(Source("wandb-artifact://me/parts/model:v1"))
    assert list(folder.iterdir()) == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nor anywhere else"


def test_an_artifact_that_does_not_exist_is_not_found(
    wandb: dict[str, Artifact], tmp_path: Path
) -> None:
    with pytest.raises(errors.SourceNotFound):
        sources(tmp_path).open(Source("wandb-artifact://me/parts/none:v1"))


def test_without_the_library_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(errors.ExtraMissing, match=r"yolopool\[wandb\]"):
        sources(tmp_path).open(Source("wandb-artifact://me/parts/m:v1"))
