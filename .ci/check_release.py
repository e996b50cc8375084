"""Refuses what would let a release take other bytes than were tried: an image named by its tag
alone, or a package without the hash of its file.

    python .ci/check_release.py --base IMAGE@sha256:... --redis IMAGE@sha256:...
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

REQUIREMENTS = Path("deploy/requirements")
_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_LOOK = "docker buildx imagetools inspect {} --format '{{{{.Manifest.Digest}}}}'"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", default="python:3.11-slim-bookworm")
    parser.add_argument("--redis", default="redis:7.4-alpine")
    given = parser.parse_args()
    faults = [*of_images(given.base, given.redis), *of_packages(REQUIREMENTS)]
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    return 1 if faults else 0


def of_images(*images: str) -> Iterator[str]:
    for image in images:
        if not _DIGEST.fullmatch(image):
            tag = image.partition("@")[0]
            yield f"{image} has no digest: give {tag}@ and what this prints: {_LOOK.format(tag)}"


def of_packages(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.txt")):
        # A line that goes on ends in a backslash.
        for entry in path.read_text().replace("\\\n", " ").splitlines():
            if not entry or entry.startswith("#"):
                continue
            if "==" not in entry.split()[0] or "--hash=sha256:" not in entry:
                yield f"{path}: {entry.split()[0]} has no hash: make lock TORCH_INDEX=..."


if __name__ == "__main__":
    sys.exit(main())
