"""Reads the files that a fleet file names: artifacts, architectures, folders of images."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from yolopool.client import uploads
from yolopool.client.fleet_file.declared import Build, Fleet, Gate, Version
from yolopool.client.fleet_file.digest_cache import DigestCache
from yolopool.client.fleet_file.planning import Entry
from yolopool.client.fleet_file.text.reading import Faults
from yolopool.client.fleet_file.text.wrong import STORED, stored_digest
from yolopool.client.rules import rule_calls
from yolopool.client.sources import fetched
from yolopool.client.training import run_folder
from yolopool.errors import YolopoolError


@dataclass(frozen=True, slots=True)
class Resolver:
    """`folder`: where the paths of the file begin. `labelled`: by digest, where the labelled images
    of gates are.
    """

    folder: Path
    digests: DigestCache
    labelled: dict[str, Path] = field(default_factory=dict)

    def entries(self, fleet: Fleet, faults: Faults) -> list[Entry]:
        """The versions of a file with their digests. What can't be read is added to the faults."""
        found = [
            self._entry(version, f"models[{index}]", faults)
            for index, version in enumerate(fleet.models or ())
        ]
        self.digests.save()
        return found

    def settled(self, fleet: Fleet, faults: Faults) -> Fleet:
        """The file with the digests of its gates' labelled images, as an export writes them."""
        if fleet.gates is None:
            return fleet
        gates = []
        for index, gate in enumerate(fleet.gates):
            line = gate.at.get("data", gate.line)
            digest = _read(faults, f"gates[{index}].data", line, partial(self._labelled, gate))
            gates.append(replace(gate, data=f"{STORED}{digest}"))
        return replace(fleet, gates=tuple(gates))

    def path(self, text: str) -> Path:
        return self.folder / Path(text).expanduser()

    def _entry(self, version: Version, where: str, faults: Faults) -> Entry:
        def read(name: str, line: int, work: partial[str]) -> str:
            return _read(faults, f"{where}.{name}", line, work)

        line = version.line
        at = version.at
        digest = read("artifact", at.get("artifact", line), partial(self._artifact, version))
        if version.sha256 and digest and digest != version.sha256:
            why = f"{version.artifact} has the digest {digest}: it is another file"
            faults.add(at["sha256"], f"{where}.sha256", why)
        architecture = version.architecture_yaml or read(
            "architecture", at.get("architecture", line), partial(self._architecture, version)
        )
        calibrations = {
            build.slot: read(
                f"builds[{number}].calibration",
                build.at.get("calibration", line),
                partial(self._calibration, build),
            )
            for number, build in enumerate(version.builds)
        }
        return Entry(version, digest, architecture, calibrations)

    def _artifact(self, version: Version) -> str:
        stored = stored_digest(version.artifact)
        if stored:
            return stored
        if fetched.is_uri(version.artifact):
            return version.sha256
        path = self.path(version.artifact)
        # Where another machine registered it, the pool has the file and this one need not.
        if version.sha256 and not path.exists():
            return version.sha256
        return self.digests.file(run_folder.find(path).file)

    def _architecture(self, version: Version) -> str:
        if not version.architecture:
            return ""
        path = self.path(version.architecture)
        return uploads.read_architecture(path if path.exists() else version.architecture)

    def _calibration(self, build: Build) -> str:
        if not build.calibration or stored_digest(build.calibration):
            return stored_digest(build.calibration)
        folder = self.path(build.calibration)
        images = list(uploads.images_in(folder))
        work = partial(_archived, folder, uploads.write_calibration_archive)
        return self.digests.files(f"calibration {folder.absolute()}", images, work)

    def _labelled(self, gate: Gate) -> str:
        if stored := stored_digest(gate.data):
            return stored
        path = self.path(gate.data)
        if path.is_dir():
            images, labels = rule_calls.labelled_files(path)
            work = partial(_archived, path, rule_calls.write_labelled_archive)
            digest = self.digests.files(f"labelled {path.absolute()}", [*images, *labels], work)
        else:
            digest = self.digests.file(path)
        self.labelled[digest] = path
        return digest


def _read(faults: Faults, key: str, line: int, work: partial[str]) -> str:
    """What `work` finds; empty, and a fault, where it can't be read."""
    try:
        return work()
    except (YolopoolError, UnicodeDecodeError) as error:
        faults.add(line, key, str(error))
    except OSError as error:
        why = f"{error.filename}: {error.strerror}: check the path and its permissions"
        faults.add(line, key, why)
    return ""


def _archived(folder: Path, write: Callable[[Path, Path], None]) -> str:
    """The digest of what is uploaded of a folder."""
    with tempfile.TemporaryDirectory(prefix="yolopool-") as scratch:
        archive = Path(scratch) / "folder.zip"
        write(folder, archive)
        return uploads.read_artifact(archive).sha256
