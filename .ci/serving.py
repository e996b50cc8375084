"""The packages of this environment that serve: what pyproject.toml asks for, and all they need."""

import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("all", "onnx", "openvino")


def packages(extras: tuple[str, ...] = EXTRAS) -> dict[str, str]:
    """Versions by name, of what is installed here; without the tools of the checks.

    Raises LookupError for a package that is asked for and not here.
    """
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    left = [*needs(wanted, "")]
    while left:
        name, extra = asked = left.pop()
        if asked in seen:
            continue
        seen.add(asked)
        if name == "yolopool":
            left += needs(project["optional-dependencies"].get(extra, ()), "")
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise LookupError(f"{name} is not installed: run make install first") from None
        found[name] = distribution.version
        left += needs(distribution.requires or (), extra)
    return found


def needs(requirements: Iterable[str], extra: str) -> Iterator[tuple[str, str]]:
    """Names and extras that apply here."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for more in ("", *requirement.extras):
                yield canonicalize_name(requirement.name), more
