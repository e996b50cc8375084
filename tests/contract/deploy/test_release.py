"""What an image is made of: packages pinned with hashes, base images by digest, and nothing that a
process does not need of its host.
"""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.contract.deploy.test_manifests import DEPLOY, ROOT, compose, manifests

LOCKS = DEPLOY / "requirements"
EXTRAS = {
    "control-plane": ("control-plane",),
    "worker": ("worker",),
    "worker-cpu": ("worker", "onnx", "openvino"),
}
DIGEST = "@sha256:" + "0123456789abcdef" * 4


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked(name: str) -> dict[str, str]:
    """Releases by package; each has a hash."""
    text = (LOCKS / f"{name}.txt").read_text().replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all("--hash=sha256:" in entry for entry in entries)
    pins = (entry.split()[0].split("==") for entry in entries)
    return {canonicalize_name(package): release for package, release in pins}


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): release for name, release in (x.split("==") for x in lines)}


def asked(extras: tuple[str, ...]) -> set[str]:
    """What pyproject.toml asks for on the platform of the images."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names: set[str] = set()
    left = ["", *extras]
    while left:
        extra = left.pop()
        texts = project["optional-dependencies"][extra] if extra else project["dependencies"]
        for requirement in map(Requirement, texts):
            if requirement.name == "yolopool":
                left += requirement.extras
            else:
                names.add(canonicalize_name(requirement.name))
    return names


@pytest.mark.parametrize("image", EXTRAS)
def test_an_image_installs_what_is_asked_for_in_the_releases_that_are_tried(image: str) -> None:
    """If this fails after a change of pyproject.toml or constraints.txt: make lock."""
    packages, pins = locked(image), pinned()
    changed = {name: pins.get(name) for name in packages if pins.get(name) != packages[name]}
    # Of the GPU's libraries, and of setuptools, the release of torch decides.
    assert all(name.startswith(("nvidia-", "cuda-", "triton", "setuptools")) for name in changed), (
        changed
    )
    elsewhere = {"opencv-python"}  # the stand-in, a wheel of this source
    if image == "worker-cpu":
        text = (LOCKS / "torch-cpu.txt").read_text()
        elsewhere |= {line.split("==")[0] for line in text.splitlines() if line[:1] != "#"}
    assert asked(EXTRAS[image]) - elsewhere <= packages.keys()
    assert ("torch" in packages) == (image == "worker")


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("Dockerfile.*")), ids=lambda path: path.name)
def test_an_image_installs_by_hash_and_its_base_can_be_given_by_digest(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]
    installs = re.findall(r"pip install [^&]+", text)
    hashed = [one for one in installs if "--require-hashes" in one or "--no-index" in one]
    torch = [one for one in installs if "torch-cpu.txt" in one]
    assert len(hashed) + len(torch) == len(installs)
    assert all("--no-deps" in one for one in installs)


def test_a_release_names_images_by_digest_and_packages_by_hash(tmp_path: Path) -> None:
    check = script("check_release")
    assert list(check.of_images(f"python:3.11{DIGEST}", f"redis{DIGEST}")) == []
    for image in ("python:3.11", "python:3.11@sha256:12", f"python:3.11 {DIGEST}", ""):
        (fault,) = check.of_images(image)
        assert "docker buildx imagetools inspect" in fault
    (tmp_path / "a.txt").write_text(
        "# note\na==1 \\\n    --hash=sha256:00\nb==2\nc>=3 --hash=sha256:0\n"
    )
    assert [fault.split()[1] for fault in check.of_packages(tmp_path)] == ["b==2", "c>=3"]


def test_a_tag_alone_ends_a_release() -> None:
    command = [sys.executable, ".ci/check_release.py", "--base", "python:3.11-slim-bookworm"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "python:3.11-slim-bookworm has no digest" in done.stderr


def test_containers_of_compose_have_no_more_than_they_need() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name


def test_pods_have_no_more_than_they_need() -> None:
    for manifest in manifests("base"):
        if manifest["kind"] not in {"Deployment", "StatefulSet"}:
            continue
        pod = manifest["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        assert not [one for one in volumes.values() if "hostPath" in one]
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_workers_may_read_the_packs_of_the_store_and_no_artifacts() -> None:
    flag = "--may-read=/data/store/packs"
    services = compose()["services"]
    assert all(flag in services[name]["command"] for name in ("worker-cpu", "worker-gpu"))
    worker = yaml.safe_load_all((DEPLOY / "k8s" / "base" / "worker.yaml").read_text())
    (args,) = [
        one["spec"]["template"]["spec"]["containers"][0]["args"]
        for one in worker
        if one["kind"] == "Deployment"
    ]
    assert flag in args
