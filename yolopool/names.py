"""Names and model references: `shapes`, `team/shapes`, `shapes@3`, `shapes:stable`, and for builds
`shapes+openvino-bf16-cpu@3`.

Pure; clients, servers and the registry follow the same rules.
"""

import re
from dataclasses import dataclass

from yolopool.errors import InvalidModelName, InvalidModelReference, InvalidOption

_PART = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_PART}(?:/{_PART})?")
# A build of a version: backend, precision, kind of device.
_BUILD = r"\+[a-z]{1,20}-[a-z0-9]{1,10}-[a-z]{1,10}"
_REFERENCE = re.compile(
    rf"(?P<name>{_PART}(?:/{_PART})?(?:{_BUILD})?)(?:@(?P<version>[1-9][0-9]{{0,8}})|:(?P<alias>{_PART}))?"
)
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
_RENAMED = re.compile(r"(\d{1,6})\s*=(.*)")
RULE = (
    "a name is 'name' or 'team/name', each part 1 to 63 of a-z, 0-9, '.', '_' and '-', "
    "beginning and ending with a letter or digit"
)


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What a caller asked for: a name with a version, an alias, or neither."""

    name: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}@{self.version}"
        return f"{self.name}:{self.alias}" if self.alias is not None else self.name


def parse_class_names(text: str) -> tuple[tuple[str, ...], dict[int, str]]:
    """Reads `bolt,nut`, the names of all classes in order, or `0=bolt,3=nut`, other names for some
    by their id. One of both is empty. Raises InvalidOption.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    pairs = [_RENAMED.fullmatch(part) for part in parts]
    found = {int(pair[1]): pair[2].strip() for pair in pairs if pair}
    if not found:
        return tuple(parts), {}
    if not all(pairs) or len(found) < len(parts) or not all(found.values()):
        raise InvalidOption(
            f"class names {text!r}: give the names of all classes in order, such as bolt,nut, or "
            "of some by their id, such as 0=bolt,3=nut"
        )
    return (), found


def build_name(model: str, backend: str, precision: str, device_kind: str) -> str:
    """The name of a build: shapes+openvino-bf16-cpu."""
    return f"{model}+{backend}-{precision}-{device_kind}"


def base_name(name: str) -> str:
    """The name of the model that a build belongs to; of a model, its own."""
    return name.partition("+")[0]


def is_build(name: str) -> bool:
    """Whether a name is that of a build."""
    return "+" in name


def check_name(name: str) -> str:
    """Returns the name, or raises InvalidModelName with the rule."""
    if not _NAME.fullmatch(name):
        raise InvalidModelName(f"{name[:80]!r} is not a model name: {RULE}")
    return name


def parse_ref(text: str) -> ModelRef:
    """Parses a model reference, or raises InvalidModelReference with the rule."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise InvalidModelReference(
            f"{text[:80]!r} is not a model reference: give name, name@version or name:alias; {RULE}"
        )
    version = match["version"]
    return ModelRef(match["name"], int(version) if version else None, match["alias"])
