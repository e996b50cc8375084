"""Reads the files that a fleet file names: artifacts, architectures, folders of images."""

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from yolopool.client import uploads
from yolopool.client.fleet_file.declared import Build, Fleet, Version
from yolopool.client.fleet_file.digest_cache import DigestCache
from yolopool.client.fleet_file.parsing import stored_digest
from yolopool.client.fleet_file.planning import Entry
from yolopool.client.fleet_file.text.reading import Faults
from yolopool.client.sources import fetched
from yolopool.client.training import run_folder
from yolopool.errors import YolopoolError


@dataclass(frozen=True, slots=True)
class Resolver:
    """`folder`: where the paths of the file begin."""

    folder: Path
    digests: DigestCache

    def entries(self, fleet: Fleet, faults: Faults) -> list[Entry]:
        """The versions of a file with their digests. What can't be read is added to the faults."""
        found = [
            self._entry(version, f"models[{index}]", faults)
            for index, version in enumerate(fleet.models or ())
        ]
        self.digests.save()
        return found

    def path(self, text: str) -> Path:
        return self.folder / Path(text).expanduser()

    def _entry(self, version: Version, where: str, faults: Faults) -> Entry:
        def read(name: str, line: int, work: partial[str]) -> str:
            try:
                return work()
            except (YolopoolError, UnicodeDecodeError) as error:
                faults.add(line, f"{where}.{name}", str(error))
            except OSError as error:
                why = f"{error.filename}: {error.strerror}: check the path and its permissions"
                faults.add(line, f"{where}.{name}", why)
            return ""

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
        work = partial(_archived, folder)
        return self.digests.files(f"calibration {folder.absolute()}", images, work)


def _archived(folder: Path) -> str:
    """The digest of what is uploaded of a folder of images."""
    with tempfile.TemporaryDirectory(prefix="yolopool-") as scratch:
        archive = Path(scratch) / "calibration.zip"
        uploads.write_calibration_archive(folder, archive)
        return uploads.read_artifact(archive).sha256
