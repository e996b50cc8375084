"""Schemas of the protos' messages, by which FastAPI validates bodies and documents answers.

Names are the protos'. Numbers are JSON numbers, those of 64 bits too (all are sizes and counts, far
below 2^53), enums are their names, bytes are base64.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from control_plane.gateway.admin.comments import comment_of
from yolopool.errors import InvalidOption

M = TypeVar("M", bound=Message)
_NOTHING: frozenset[str] = frozenset()


def _tidy(schema: dict[str, Any]) -> None:
    # Titles are the names again, in capitals; what is left out has no default, it is not set.
    for one in schema.get("properties", {}).values():
        one.pop("title", None)
        one.pop("default", None)


# Strict: "5" is no number, and 1 is no boolean.
_CONFIG = ConfigDict(strict=True, extra="forbid", protected_namespaces=(), json_schema_extra=_tidy)


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"no base64: {error}") from error
    return text


_BYTES = Annotated[
    str,
    AfterValidator(_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
_FLOAT = Annotated[float, Field(allow_inf_nan=False)]
_SCALARS: dict[int, Any] = {
    FieldDescriptor.CPPTYPE_BOOL: bool,
    FieldDescriptor.CPPTYPE_DOUBLE: _FLOAT,
    FieldDescriptor.CPPTYPE_FLOAT: _FLOAT,
    FieldDescriptor.CPPTYPE_INT32: Annotated[int, Field(ge=-(2**31), lt=2**31)],
    FieldDescriptor.CPPTYPE_INT64: Annotated[int, Field(ge=-(2**63), lt=2**63)],
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_UINT32: Annotated[int, Field(ge=0, lt=2**32)],
    # Not below 2**64, which the document can not say.
    FieldDescriptor.CPPTYPE_UINT64: Annotated[int, Field(ge=0, le=2**64 - 1)],
}

_made: dict[tuple[str, frozenset[str]], type[BaseModel]] = {}
_being_made: set[str] = set()


def schema_of(
    descriptor: Descriptor, without: frozenset[str] = _NOTHING, name: str = ""
) -> type[BaseModel]:
    """The model of a message, less the fields `without`, which need a `name` for what is left."""
    key = descriptor.full_name, without
    if key not in _made:
        _being_made.add(descriptor.full_name)
        fields = [field for field in descriptor.fields if field.name not in without]
        given: dict[str, Any] = {field.name: _field(field) for field in fields}
        made = create_model(
            name or descriptor.name,
            __config__=_CONFIG,
            __doc__=comment_of(descriptor.full_name) or None,
            **given,
        )
        _being_made.discard(descriptor.full_name)
        # A message may hold others of its own kind.
        made.model_rebuild(_types_namespace={descriptor.name: made})
        _made[key] = made
    return _made[key]


def type_of(field: FieldDescriptor) -> Any:
    """The type of a field's value."""
    of = _of_map(field)
    if of is not None:
        return dict[str, type_of(of)]  # type: ignore[misc]
    return list[_one(field)] if field.is_repeated else _one(field)  # type: ignore[misc]


def _of_map(field: FieldDescriptor) -> FieldDescriptor | None:
    """The field of a map's values; None: it is no map."""
    of = field.message_type
    return of.fields_by_name["value"] if of is not None and of.GetOptions().map_entry else None


def _one(field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        recurs = field.message_type.full_name in _being_made
        return field.message_type.name if recurs else schema_of(field.message_type)
    if field.enum_type is not None:
        return Literal[tuple(value.name for value in field.enum_type.values)]
    return _BYTES if field.type == FieldDescriptor.TYPE_BYTES else _SCALARS[field.cpp_type]


def _field(field: FieldDescriptor) -> tuple[Any, Any]:
    about = comment_of(field.full_name) or None
    # None is never given: what is left out is not set.
    return type_of(field), Field(None, description=about, validate_default=False)


def parsed(value: Mapping[str, Any], message: M) -> M:
    """The message with the fields of a JSON object. Raises InvalidOption, which names the field."""
    try:
        return json_format.ParseDict(dict(value), message)
    except json_format.ParseError as error:
        raise InvalidOption(str(error)) from error
