"""The image and the parameters of a Detect, from a raw, multipart or JSON body. Pure."""

import binascii
from urllib.parse import parse_qsl

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from control_plane.gateway.rest.options import DetectParameters, of_json, of_pairs
from yolopool.errors import ImageEmpty, InvalidArgument, InvalidOption

# What a caller calls the part that has the image.
IMAGE_PARTS = ("image", "file")
MAX_QUERY_FIELDS = 100
MAX_FIELD_BYTES = 256 * 1024
_DATA_URI = "data:"
_JSON, _MULTIPART = "application/json", "multipart/form-data"
# curl's --data-binary says the second of itself; others say nothing.
_RAW = ("application/octet-stream", "application/x-www-form-urlencoded", "")


def parse(
    content_type: str, query: bytes, body: bytes, max_parts: int
) -> tuple[DetectParameters, bytes]:
    """Raises InvalidOption, InvalidArgument, ImageEmpty, and HTTPException 415."""
    kind = content_type.partition(";")[0].strip().lower()
    pairs = _query(query)
    if kind.startswith("image/") or kind in _RAW:
        return of_pairs(pairs), body
    if kind == _MULTIPART:
        fields, image = _multipart(content_type, body, max_parts)
        return of_pairs([*pairs, *fields]), image
    if kind == _JSON:
        return _json(pairs, body)
    raise HTTPException(
        415,
        f"{kind[:80]!r} is not taken: send the file of an image as image/* or "
        f"application/octet-stream, {_MULTIPART}, or {_JSON} with the image in base64",
    )


def _query(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError:
        raise InvalidOption(f"a query has at most {MAX_QUERY_FIELDS} fields") from None


def _json(pairs: list[tuple[str, str]], body: bytes) -> tuple[DetectParameters, bytes]:
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the body is no JSON: {error}") from None
    if not isinstance(members, dict):
        raise InvalidArgument("the body is JSON, but no object: give model, image and options")
    for name, value in pairs:
        if name in members:
            raise InvalidOption(f"{name[:80]!r} is given twice: in the query and in the body")
        members[name] = value
    given = of_json(members)
    return given, _from_base64(given.image)


def _from_base64(text: str) -> bytes:
    if text.startswith(_DATA_URI):
        text = text.partition(",")[2]
    try:
        return binascii.a2b_base64(text.encode(), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InvalidOption(f"image is no base64: {error}") from None


class _Parts:
    """Takes what the parser finds."""

    def __init__(self, max_parts: int) -> None:
        self.fields: list[tuple[str, str]] = []
        self.images: list[bytes] = []
        self._max_parts = max_parts
        self._count = 0
        self._name, self._header, self._value = "", bytearray(), bytearray()
        self._data: list[bytes] = []

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_ended,
            "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._count += 1
        if self._count > self._max_parts:
            raise InvalidArgument(f"a multipart body has at most {self._max_parts} parts")
        self._name, self._data = "", []
        self._header.clear()
        self._value.clear()

    def _header_ended(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            _, told = parse_options_header(bytes(self._value))
            self._name = told.get(b"name", b"").decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _end(self) -> None:
        data = b"".join(self._data)
        if self._name in IMAGE_PARTS:
            self.images.append(data)
        elif len(data) > MAX_FIELD_BYTES:
            raise InvalidArgument(
                f"the field {self._name[:80]!r} has more than {MAX_FIELD_BYTES} bytes: name the "
                "part of the image image or file"
            )
        else:
            self.fields.append((self._name, data.decode("utf-8", "replace")))


def _multipart(
    content_type: str, body: bytes, max_parts: int
) -> tuple[list[tuple[str, str]], bytes]:
    """The fields, and the image."""
    _, told = parse_options_header(content_type.encode("latin-1"))
    boundary = told.get(b"boundary", b"")
    parts = _Parts(max_parts)
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidArgument(f"the body is no multipart/form-data: {error}") from None
    if not parts.images:
        raise ImageEmpty("no part has the image: name it image or file, as in curl -F image=@FILE")
    if len(parts.images) > 1:
        raise InvalidArgument(
            f"{len(parts.images)} images are in one request: send one a request, as many as you "
            "like at a time"
        )
    return parts.fields, parts.images[0]
