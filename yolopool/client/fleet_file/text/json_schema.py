"""The JSON schema of a fleet file, made of the records that its reader fills. Pure."""

from collections.abc import Mapping
from dataclasses import MISSING, is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from yolopool.client.fleet_file.declared import Fleet, keys

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema of a whole file, for editors and other programs."""
    kinds: dict[str, Any] = {}
    root = _record(Fleet, kinds)
    return {"$schema": DIALECT, "title": "Fleet of yolopool", **root, "$defs": kinds}


def _record(kind: type[Any], kinds: dict[str, Any]) -> dict[str, Any]:
    hints, known = get_type_hints(kind), keys(kind)
    required = [
        name
        for name, one in known.items()
        if one.default is MISSING and one.default_factory is MISSING
    ]
    return {
        "type": "object",
        "description": (kind.__doc__ or "").splitlines()[0],
        "properties": {
            name: {**_of(hints[name], one.metadata, kinds), "description": one.metadata["doc"]}
            for name, one in known.items()
        },
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _of(hint: Any, about: Mapping[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    others = [one for one in get_args(hint) if one is not NoneType]
    if NoneType in get_args(hint):
        return _of(others[0], about, kinds)
    if is_dataclass(hint):
        assert isinstance(hint, type)
        if hint.__name__ not in kinds:
            kinds[hint.__name__] = {}  # its place, should it be within itself
            kinds[hint.__name__] = _record(hint, kinds)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _of(others[0], about, kinds)}
    if get_origin(hint) is Mapping:
        return _mapping(others, about, kinds)
    return _scalar(hint, about)


def _mapping(of: list[Any], about: Mapping[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    value = _of(of[1], {**about, "choices": ()}, kinds)
    if about["choices"]:
        names = {name: value for name in about["choices"]}
        return {"type": "object", "properties": names, "additionalProperties": False}
    names = {"propertyNames": {"pattern": "^[0-9]+$"}} if of[0] is int else {}
    return {"type": "object", **names, "additionalProperties": value}


def _scalar(hint: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    if hint is str:
        if about["choices"]:
            return {"enum": list(about["choices"])}
        return {"type": ["string", "number", "boolean"] if about["loose"] else "string"}
    if hint is bool:
        return {"type": "boolean"}
    bounds = {"minimum": about["least"], "maximum": about["most"]}
    kind = {"type": "integer" if hint is int else "number"}
    return {**kind, **{name: value for name, value in bounds.items() if value is not None}}
