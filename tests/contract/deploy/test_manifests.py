"""Deployment files are valid by their schemas and say only flags that the processes take.

Nothing is built or run here: these files are validated, not proven.
"""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
COMPOSE_SCHEMA = ROOT / "tests" / "vendor" / "compose-spec" / "compose-spec.json"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
KUBERNETES_VERSION = "1.31"
# Where the store is in every process, since its addresses are file:///data/store/...
STORE = "/data/store"
MODULE_OF_IMAGE = {
    "Dockerfile.control_plane": "control_plane",
    "Dockerfile.worker": "worker",
    "Dockerfile.worker-cpu": "worker",
}


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def manifests(overlay: str) -> list[dict[str, Any]]:
    """What an overlay renders to; where kubectl is missing, the base's files as they are."""
    if kubectl := shutil.which("kubectl"):
        command = [kubectl, "kustomize", str(DEPLOY / "k8s" / overlay)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return list(yaml.safe_load_all(done.stdout))
    base = DEPLOY / "k8s" / "base"
    names = yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]
    return [part for name in names for part in yaml.safe_load_all((base / name).read_text())]


def containers(overlay: str) -> dict[str, dict[str, Any]]:
    """Container by the name of its workload."""
    found = {}
    for manifest in manifests(overlay):
        if manifest["kind"] in {"Deployment", "StatefulSet"}:
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            found[manifest["metadata"]["name"]] = container
    return found


def flags_of(module: str) -> set[str]:
    """The flags that `python -m MODULE` takes."""
    settings = importlib.import_module(f"{module}.settings").Settings
    return {f"--{name.replace('_', '-')}" for name in settings.model_fields}


def assert_flags_exist(module: str, arguments: list[str]) -> None:
    used = {argument.partition("=")[0] for argument in arguments}
    assert used <= flags_of(module)


def module_of(name: str) -> str:
    """The process that a service or workload runs."""
    return name.removesuffix("-cpu").removesuffix("-gpu").replace("-", "_")


def test_compose_file_is_valid() -> None:
    schema = json.loads(COMPOSE_SCHEMA.read_text())
    # Its $schema is an https address that jsonschema does not know as draft 7.
    jsonschema.Draft7Validator(schema).validate(compose())


def test_compose_publishes_ports_on_loopback_only() -> None:
    published = [p for s in compose()["services"].values() for p in s.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_flags_exist_and_the_store_has_one_path() -> None:
    services = compose()["services"]
    for name in sorted(set(services) - {"redis"}):
        assert_flags_exist(module_of(name), services[name]["command"])
        stores = [v for v in services[name]["volumes"] if v.startswith("store:")]
        assert [v.split(":")[1] for v in stores] == [STORE]


def test_workers_run_under_their_supervisor() -> None:
    """Without it nobody tells the control planes of a crash loop or of what was in hand."""
    compose_workers = [s for n, s in compose()["services"].items() if n.startswith("worker")]
    commands = [one["command"] for one in compose_workers]
    commands.append(containers("base")["worker"]["args"])
    for path in DOCKERFILES:
        if MODULE_OF_IMAGE[path.name] == "worker":
            (command,) = re.findall(r"^CMD (\[.*\])$", path.read_text(), re.MULTILINE)
            commands.append(json.loads(command))
    for command in commands:
        flags = {flag.partition("=")[0] for flag in command}
        assert "--devices" in flags
        assert "--device" not in flags
    patches = yaml.safe_load((DEPLOY / "k8s" / "cpu" / "kustomization.yaml").read_text())["patches"]
    assert any("--devices=cpu" in patch["patch"] for patch in patches)


@pytest.mark.parametrize("overlay", ["base", "cpu"])
def test_kubernetes_manifests_are_valid(overlay: str) -> None:
    rendered = manifests(overlay)
    assert {"Deployment", "StatefulSet", "Service", "PodDisruptionBudget"} <= {
        manifest["kind"] for manifest in rendered
    }
    for manifest in rendered:
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("overlay", ["base", "cpu"])
def test_kubernetes_flags_exist_and_the_store_has_one_path(overlay: str) -> None:
    for name, container in containers(overlay).items():
        if name == "redis":
            continue
        assert_flags_exist(module_of(name), container["args"])
        paths = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "store"]
        assert paths == [STORE]


@pytest.mark.parametrize("overlay", ["base", "cpu"])
def test_kubernetes_selectors_choose_something(overlay: str) -> None:
    rendered = manifests(overlay)
    labels = [
        m["spec"]["template"]["metadata"]["labels"]
        for m in rendered
        if m["kind"] in {"Deployment", "StatefulSet"}
    ]
    for manifest in rendered:
        wanted = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        }.get(manifest["kind"])
        if wanted is not None:
            assert any(wanted(manifest["spec"]).items() <= given.items() for given in labels)


def test_the_cpu_overlay_asks_for_no_gpu() -> None:
    patches = yaml.safe_load((DEPLOY / "k8s" / "cpu" / "kustomization.yaml").read_text())["patches"]
    (steps,) = (yaml.safe_load(p["patch"]) for p in patches if p["target"]["name"] == "worker")
    worker = containers("base")["worker"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    # The flag is replaced by its place in the list.
    assert worker["args"][0] == "--devices=cuda"
    assert {step["path"].rpartition("/containers/0/")[2] for step in steps} == {
        "image",
        "args/0",
        "resources/limits/nvidia.com~1gpu",
    }


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_are_clean(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_start_their_process_unprivileged_with_flags_that_exist(path: Path) -> None:
    text = path.read_text()
    module = MODULE_OF_IMAGE[path.name]
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)
    assert f'ENTRYPOINT ["python", "-m", "{module}"]' in text
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert_flags_exist(module, json.loads(command))


def test_images_get_what_they_copy() -> None:
    kept = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert all((ROOT / name).exists() for name in kept)


def test_prometheus_scrapes_the_metrics_door() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8080"]}]
