"""The part of the OpenAPI document on Detect that FastAPI can't know: parameters, the three kinds
of body, and the forms of the answer. Made from the models and protos that serve it.
"""

from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from control_plane.gateway import proto_json
from control_plane.gateway.rest import tables
from control_plane.gateway.rest.options import TEXT_FORMS, DetectBody, DetectParameters
from yolopool.v1 import detection_pb2, types_pb2

_BINARY = {"type": "string", "format": "binary"}
_TYPES = {
    FieldDescriptor.CPPTYPE_BOOL: "boolean",
    FieldDescriptor.CPPTYPE_FLOAT: "number",
    FieldDescriptor.CPPTYPE_DOUBLE: "number",
    FieldDescriptor.CPPTYPE_STRING: "string",
    FieldDescriptor.CPPTYPE_ENUM: "string",
}


def schema_of(message: Descriptor) -> dict[str, Any]:
    """The JSON schema of a message as `proto_json` writes it."""
    properties = {field.name: _schema_of_field(field) for field in message.fields}
    required = [
        field.name for field in message.fields if field.is_repeated or not field.has_presence
    ]
    return {"type": "object", "properties": properties, "required": required}


def _schema_of_field(field: FieldDescriptor) -> dict[str, Any]:
    one: dict[str, Any]
    if field.message_type is not None:
        one = schema_of(field.message_type)
    else:
        one = {"type": _TYPES.get(field.cpp_type, "integer")}
    return {"type": "array", "items": one} if field.is_repeated else one


def _text_fields() -> dict[str, dict[str, Any]]:
    """The fields of a query or form, each with its schema and description."""
    fields = {}
    for name, schema in DetectParameters.model_json_schema()["properties"].items():
        described = {key: schema[key] for key in ("description", "default") if key in schema}
        described.pop("default", None)
        fields[name] = {**described, **(TEXT_FORMS.get(name) or _plain(schema))}
    return fields


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without `null`, which a text can't say."""
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    return {
        key: value
        for key, value in kinds[0].items()
        if key not in ("title", "default", "description")
    }


def _parameters() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "query",
            # In a form or JSON it may be given there instead.
            "required": False,
            "schema": {key: value for key, value in schema.items() if key != "description"},
            "description": schema.get("description", name),
        }
        for name, schema in _text_fields().items()
    ]


def _body() -> dict[str, Any]:
    """Of DetectBody, whole: without references, since it is no component."""
    schema = DetectBody.model_json_schema()
    definitions = schema.pop("$defs")

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolved(definitions[value["$ref"].rpartition("/")[2]])
            return {key: resolved(item) for key, item in value.items()}
        return [resolved(item) for item in value] if isinstance(value, list) else value

    schema["required"] = ["image"]  # model may be in the query
    return dict(resolved(schema))


_EXAMPLE = detection_pb2.DetectResponse(
    detections=[
        detection_pb2.Detection(
            class_name="person",
            confidence=0.91,
            box=types_pb2.Box(x_min=221.5, y_min=402.25, x_max=344.75, y_max=857.5),
        )
    ],
    image_width=810,
    image_height=1080,
    version=types_pb2.VersionKey(model="yolo11n", version=1),
    variant=types_pb2.Variant(backend="torch", precision="fp32", device_kind="cpu"),
    worker="box-cpu",
    device="cpu",
    batch_size=1,
    timing=detection_pb2.Timing(decode_ms=3.5, inference_ms=41.25, total_ms=46.5),
    request_id="8c5b3a9f1f0e4f43b0d4a0b9e7c2d611",
    task="detect",
)

DETECT: dict[str, Any] = {
    "parameters": _parameters(),
    "requestBody": {
        "required": True,
        "content": {
            # First, since the documentation page has a button to choose a file for it.
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": _BINARY, **_text_fields()},
                }
            },
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
            "application/json": {"schema": _body()},
        },
    },
    "responses": {
        "200": {
            "description": "What is on the image.",
            "content": {
                "application/json": {
                    "schema": schema_of(detection_pb2.DetectResponse.DESCRIPTOR),
                    "example": orjson.loads(proto_json.dumps(_EXAMPLE)),
                },
                "text/csv": {
                    "schema": {"type": "string"},
                    "example": tables.csv_of(_EXAMPLE).decode(),
                },
                "image/jpeg": {"schema": _BINARY},
                "image/png": {"schema": _BINARY},
            },
        }
    },
}
