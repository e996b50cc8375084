"""Writes the software bill of materials of the packages that serve, in CycloneDX's JSON.

python .ci/sbom.py FILE
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import serving
from packaging.utils import canonicalize_name


def main() -> int:
    target = Path(sys.argv[1])
    kept = set(serving.packages())
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.json"
        subprocess.run(
            [
                sys.executable, "-m", "cyclonedx_py", "environment", sys.executable,
                "--pyproject", "pyproject.toml", "--mc-type", "application",
                "--output-reproducible", "--no-validate", "-o", str(whole),
            ],
            check=True,
        )  # fmt: skip
        bill = only(json.loads(whole.read_text()), kept)
    fault = validated(bill)
    if fault:
        sys.stderr.write(f"the bill is not valid: {fault}\n")
        return 1
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n")
    sys.stdout.write(f"{target}: {len(bill['components'])} components\n")
    return 0


def only(bill: dict[str, Any], kept: set[str]) -> dict[str, Any]:
    """The bill without the packages that only the checks need."""
    root = bill["metadata"]["component"]["bom-ref"]
    components = [
        one
        for one in bill["components"]
        if canonicalize_name(one["name"]) in kept and canonicalize_name(one["name"]) != "yolopool"
    ]
    refs = {root, *(one["bom-ref"] for one in components)}
    edges = [
        {"ref": one["ref"], "dependsOn": sorted(refs.intersection(one.get("dependsOn", ())))}
        for one in bill.get("dependencies", ())
        if one["ref"] in refs
    ]
    return {**bill, "components": components, "dependencies": edges}


def validated(bill: dict[str, Any]) -> str:
    """What CycloneDX's own schema says against it; empty: nothing."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    version = SchemaVersion.from_version(bill["specVersion"])
    error = JsonStrictValidator(version).validate_str(json.dumps(bill))
    return "" if error is None else str(error)


if __name__ == "__main__":
    sys.exit(main())
