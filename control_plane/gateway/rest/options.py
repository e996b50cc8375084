"""What a REST caller may say beside the image: the fields of DetectRequest and DetectOptions by
their names, as text (query, form) or as JSON. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from yolopool.errors import InvalidOption
from yolopool.v1 import detection_pb2, types_pb2
from yolopool.vocabulary import MAX_DETECTIONS, MAX_STICKY_KEY_CHARS

_UINT32 = 2**32 - 1
_MAX_TIMEOUT_S = 24 * 3600.0
_MAX_LISTED = 10_000

Fraction = Annotated[float, Field(ge=0, le=1)]
Index = Annotated[int, Field(ge=0, le=_UINT32)]
Pixel = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Region(_Part):
    """A box in pixels of the image."""

    x_min: Pixel
    y_min: Pixel
    x_max: Pixel
    y_max: Pixel


class ClassThreshold(_Part):
    class_id: Index
    confidence: Fraction


class Tiles(_Part):
    tile_size: Index = 0
    overlap: Fraction | None = None


def _region(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    sides = value.split(",")
    if len(sides) != 4:
        raise ValueError("write x_min,y_min,x_max,y_max")
    return dict(zip(("x_min", "y_min", "x_max", "y_max"), sides, strict=True))


def _tiles(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    size, _, overlap = value.partition(",")
    return {"tile_size": size, **({"overlap": overlap} if overlap else {})}


def _listed(value: Any) -> Any:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _thresholds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    pairs = (part.partition(":") for part in _listed(value))
    return [{"class_id": left, "confidence": right} for left, _, right in pairs]


def _word(prefix: str) -> BeforeValidator:
    """Enum values by their name, with or without the proto's prefix, in any case."""

    def short(value: Any) -> Any:
        return value.lower().removeprefix(prefix) if isinstance(value, str) else value

    return BeforeValidator(short)


class DetectParameters(BaseModel):
    """All of them are optional but `model`; what is left out takes the version's settings."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="name, team/name, name@version or name:alias", max_length=200)
    confidence: Fraction | None = Field(None, description="least confidence of a box")
    class_confidences: Annotated[list[ClassThreshold], BeforeValidator(_thresholds)] = Field(
        [], description="overrides it for single classes: 0:0.5,3:0.7", max_length=_MAX_LISTED
    )
    iou: Fraction | None = Field(
        None, description="overlap above which the less confident of two boxes is dropped"
    )
    max_detections: Annotated[int, Field(ge=1, le=MAX_DETECTIONS)] | None = None
    classes: Annotated[list[Index], BeforeValidator(_listed)] = Field(
        [], description="only these class ids: 0,2", max_length=_MAX_LISTED
    )
    agnostic_nms: bool = Field(
        False, description="suppress overlapping boxes of different classes too"
    )
    region_of_interest: Annotated[Region, BeforeValidator(_region)] | None = Field(
        None, description="detect only inside this box: x_min,y_min,x_max,y_max in pixels"
    )
    mask_format: Annotated[Literal["none", "polygon", "rle"], _word("mask_format_")] | None = Field(
        None, description="of segment: how masks are told; polygon if left out"
    )
    top_k: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="of classify: how many classes to name; 5 if left out"
    )
    all_probabilities: bool = Field(
        False, description="of classify: the probability of every class too"
    )
    image_size: Index = Field(
        0, description="longest side to scale the image to, one of the version's image_sizes"
    )
    tiling: Annotated[Tiles, BeforeValidator(_tiles)] | None = Field(
        None,
        description="cut a large image into tiles: tile_size or tile_size,overlap; tile_size 0 is "
        "the model's own, overlap is a share of a tile",
    )
    accept_damaged: bool = Field(
        False, description="run a JPEG of which parts can't be read instead of refusing it"
    )
    priority: Annotated[Literal["interactive", "normal", "bulk"], _word("priority_")] | None = (
        Field(None, description="normal if left out")
    )
    sticky_key: str = Field(
        "",
        description="of an alias with several versions: requests with the same key are answered by "
        "the same one",
        max_length=MAX_STICKY_KEY_CHARS,
    )
    timeout: Annotated[float, Field(gt=0, le=_MAX_TIMEOUT_S)] | None = Field(
        None, description="seconds that the caller waits; the server's default if left out"
    )


class DetectBody(DetectParameters):
    image: str = Field(
        description="the file of the image in base64, with or without data:image/...;base64, "
        "before it",
        json_schema_extra={"contentEncoding": "base64"},
    )


# As text they are written in another way than in JSON.
TEXT_FORMS: Mapping[str, dict[str, Any]] = {
    "class_confidences": {"type": "string", "examples": ["0:0.5,3:0.7"]},
    "classes": {"type": "string", "examples": ["0,2"]},
    "region_of_interest": {"type": "string", "examples": ["100,50,400,300"]},
    "tiling": {"type": "string", "examples": ["640,0.2"]},
}
_REPEATABLE = frozenset({"classes", "class_confidences"})


def of_pairs(pairs: Iterable[tuple[str, str]]) -> DetectParameters:
    """From query and form fields. Raises InvalidOption."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in values:
            values[name] = value
        elif name in _REPEATABLE:
            values[name] += "," + value
        else:
            raise InvalidOption(f"{name[:80]!r} is given twice: give it once")
    given: DetectParameters = _validated(DetectParameters, values)
    return given


def of_json(values: Mapping[str, Any]) -> DetectBody:
    """From the members of a JSON object. Raises InvalidOption."""
    given: DetectBody = _validated(DetectBody, values)
    return given


def _validated(kind: type[Any], values: Mapping[str, Any]) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InvalidOption("; ".join(_told(error.errors(), kind))) from None


def _told(faults: Sequence[Any], kind: type[BaseModel]) -> Iterable[str]:
    for fault in faults[:5]:
        place = ".".join(str(part)[:80] for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            yield f"{place} is not known: known are {', '.join(kind.model_fields)}"
        elif fault["type"] == "missing":
            yield f"{place} is missing"
        else:
            yield f"{place}: {fault['msg']}"


def request_of(given: DetectParameters) -> detection_pb2.DetectRequest:
    """The request without its image."""
    request = detection_pb2.DetectRequest(model=given.model, sticky_key=given.sticky_key)
    if given.priority is not None:
        request.priority = types_pb2.Priority.Value(f"PRIORITY_{given.priority.upper()}")
    named = given.model_fields_set
    if named == _ONLY_MODEL:
        return request
    options = request.options
    for name in _SCALARS & named:
        value = getattr(given, name)
        if value is not None:
            setattr(options, name, value)
    options.classes.extend(given.classes)
    for threshold in given.class_confidences:
        options.class_confidences.add(class_id=threshold.class_id, confidence=threshold.confidence)
    if given.mask_format is not None:
        word = f"MASK_FORMAT_{given.mask_format.upper()}"
        options.mask_format = detection_pb2.MaskFormat.Value(word)
    if given.region_of_interest is not None:
        options.region_of_interest.MergeFrom(types_pb2.Box(**given.region_of_interest.model_dump()))
    if given.tiling is not None:
        options.tiling.SetInParent()
        options.tiling.MergeFrom(detection_pb2.Tiling(**given.tiling.model_dump(exclude_none=True)))
    return request


_ONLY_MODEL = {"model"}
_SCALARS = frozenset(
    {
        "confidence",
        "iou",
        "max_detections",
        "agnostic_nms",
        "top_k",
        "all_probabilities",
        "image_size",
        "accept_damaged",
    }
)
