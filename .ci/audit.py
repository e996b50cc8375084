"""Looks the packages that serve up in databases of known vulnerabilities.

    python .ci/audit.py                    PyPI's, by pip-audit: needs the network
    python .ci/audit.py --database all.zip OSV's for PyPI, the file or its folder: needs none

Exit status: 0 nothing is known, 1 something is, 2 it could not be looked up. The file is
https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import serving
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--database", type=Path, help="OSV's all.zip for PyPI, or its folder")
    database = parser.parse_args().database
    # The local part (torch's +cpu) names a build; advisories know releases.
    packages = {name: text.partition("+")[0] for name, text in serving.packages().items()}
    return by_file(packages, database) if database is not None else by_network(packages)


def by_network(packages: Mapping[str, str]) -> int:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in packages.items()))
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "-r", file.name]
        done = subprocess.run(
            [*command, "--progress-spinner", "off", "--timeout", "20", "-f", "json"],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        sys.stderr.write(done.stderr[-2_000:])
        answers = []
    return told(answers, len(packages))


def told(answers: list[dict[str, Any]], asked: int) -> int:
    """Prints what pip-audit found. It calls a package clean of which it could learn nothing: an
    index that mirrors PyPI without its advisories does that to all of them.
    """
    known = [one for one in answers if "vulns" in one and not one.get("skip_reason")]
    found = [(one, fault) for one in known for fault in one["vulns"]]
    for one, fault in found:
        fixed = ", ".join(fault["fix_versions"]) or "no release"
        sys.stdout.write(f"{one['name']} {one['version']}: {fault['id']}, fixed in {fixed}\n")
    sys.stdout.write(f"{len(known)} of {asked} packages looked up, {len(found)} found\n")
    if len(known) < asked:
        sys.stderr.write(
            f"NOT AUDITED: nothing could be learnt of {asked - len(known)} packages. Run this "
            "where PyPI itself is reachable, or give --database all.zip of OSV\n"
        )
        return 1 if found else 2
    return 1 if found else 0


def by_file(packages: Mapping[str, str], database: Path) -> int:
    found, read = [], 0
    try:
        for record in records(database):
            read += 1
            found += list(hits(record, packages))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        sys.stderr.write(f"NOT AUDITED: {database} is no database of OSV: {error}\n")
        return 2
    if not read:
        sys.stderr.write(f"NOT AUDITED: {database} holds no record\n")
        return 2
    sys.stdout.write("".join(f"{line}\n" for line in sorted(found)))
    sys.stdout.write(f"{len(packages)} packages, {read} records, {len(found)} found\n")
    return 1 if found else 0


def records(database: Path) -> Iterator[dict[str, Any]]:
    if database.is_dir():
        for path in sorted(database.glob("*.json")):
            yield json.loads(path.read_bytes())
        return
    with zipfile.ZipFile(database) as archive:
        for name in archive.namelist():
            yield json.loads(archive.read(name))


def hits(record: Mapping[str, Any], packages: Mapping[str, str]) -> Iterator[str]:
    """Lines for the packages that a record concerns; https://ossf.github.io/osv-schema/."""
    if record.get("withdrawn"):
        return
    for affected in record.get("affected", ()):
        package = affected.get("package", {})
        name = canonicalize_name(package.get("name", ""))
        if package.get("ecosystem") != "PyPI" or name not in packages:
            continue
        version = packages[name]
        if version in affected.get("versions", ()) or any(
            within(version, one.get("events", ()))
            for one in affected.get("ranges", ())
            if one.get("type") == "ECOSYSTEM"
        ):
            names = " ".join([record["id"], *record.get("aliases", ())])
            yield f"{name} {version}: {names}: {record.get('summary', '')}"[:200]


def within(text: str, events: Any) -> bool:
    """Whether a version lies between an event that introduced a fault and the one that ended it."""
    at, inside = parsed(text), False
    for event in sorted(events, key=lambda event: parsed(next(iter(event.values())))):
        if "introduced" in event and parsed(event["introduced"]) <= at:
            inside = True
        elif ("fixed" in event and parsed(event["fixed"]) <= at) or (
            "last_affected" in event and parsed(event["last_affected"]) < at
        ):
            inside = False
    return inside


def parsed(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


if __name__ == "__main__":
    sys.exit(main())
