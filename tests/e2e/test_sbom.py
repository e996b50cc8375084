"""The bill of materials of what serves: made by the real tool, and valid by CycloneDX's schema."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.e2e


@pytest.mark.matrix(sample=0)
@pytest.mark.parametrize("environment", ["this one"])
def test_the_bill_lists_what_serves_and_no_tool(environment: str, tmp_path: Path) -> None:
    bill = tmp_path / "bill.cdx.json"
    command = [sys.executable, ".ci/sbom.py", str(bill)]
    # It checks what it wrote by the schema.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = json.loads(bill.read_text())
    names = {component["name"] for component in made["components"]}
    assert {"torch", "ultralytics", "grpcio", "redis", "cryptography", "openvino"} <= names
    assert not {"pytest", "ruff", "mypy", "pip-audit", "cyclonedx-bom"} & names
    assert made["bomFormat"] == "CycloneDX"
    assert made["metadata"]["component"]["name"] == "yolopool"
    purls = [component["purl"] for component in made["components"]]
    assert all(purl.startswith("pkg:pypi/") for purl in purls)
