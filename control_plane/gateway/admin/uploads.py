"""Files by HTTP, from the socket into the artifact store a piece at a time.

`/v1/artifacts/SHA256` is for who knows the digest, and goes on where it ended. A file that is put
on `/v1/models/NAME` becomes the next version of the model.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from control_plane.convert.validation import check_settings
from control_plane.gateway.admin.endpoints import (
    Timeout,
    json_answer,
    parameter,
    problems,
    query_parameters,
    refuse_unknown,
    with_parameters,
)
from control_plane.gateway.admin.schemas import parsed, schema_of
from control_plane.gateway.connection.envelope import caller_of, request_id_of
from control_plane.gateway.dispatch import Dispatch
from control_plane.gateway.problem import problem
from yolopool.errors import ArtifactNotFound, Cancelled, InvalidOffset, InvalidOption
from yolopool.names import check_name
from yolopool.v1 import model_pb2, types_pb2

UPLOAD = "/yolopool.v1.ModelService/UploadArtifact"
REGISTER = "/yolopool.v1.ModelService/RegisterModel"
ARTIFACT, MODEL = "/v1/artifacts/{sha256}", "/v1/models/{model:path}"
# Of a message.
_CHUNK_BYTES = 1 << 20
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_SETTINGS = tuple(types_pb2.VersionSettings.DESCRIPTOR.fields_by_name)
_REGISTRATION = ("class_names", "source_name", "request_id", "signature")
_FILE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": _FILE}}}

Digest = Annotated[str, Path(description="SHA-256 of the file, 64 lower-case hexadecimal digits.")]


def upload_routes(dispatch: Dispatch) -> APIRouter:
    """The endpoints that take files."""
    router = APIRouter(tags=["model"])
    uploads = _Uploads(dispatch)
    held = schema_of(model_pb2.UploadArtifactResponse.DESCRIPTOR)
    offset = {"Upload-Offset": {"schema": {"type": "integer"}, "description": "Bytes held."}}
    router.add_api_route(
        ARTIFACT,
        uploads.look,
        methods=["GET"],
        operation_id="GetArtifact",
        summary="How many bytes of a file are held",
        response_model=None,
        responses={
            200: {"description": "All, or a part.", "model": held, "headers": offset},
            **problems(404),
        },
    )
    router.add_api_route(
        ARTIFACT,
        uploads.put_artifact,
        methods=["PUT"],
        operation_id="UploadArtifact",
        summary="Stores a file under its SHA-256",
        description="With `Content-Range: bytes FIRST-LAST/SIZE` a part of it, from where the last "
        "one ended; without, the whole file. What was received is kept when the connection breaks.",
        response_model=None,
        openapi_extra=_BODY,
        responses={
            200: {"description": "It was there.", "model": held, "headers": offset},
            201: {"description": "It is stored.", "model": held, "headers": offset},
            202: {"description": "A part is stored.", "model": held, "headers": offset},
            **problems(415, 422),
        },
    )
    version = schema_of(model_pb2.ModelVersion.DESCRIPTOR)
    router.add_api_route(
        MODEL,
        uploads.put_model(),
        methods=["PUT"],
        operation_id="UploadModel",
        summary="Stores a file and registers it as the next version of a model",
        description="Answers when it is imported, `state` says how; with wait=false as soon as it "
        "is stored.",
        status_code=201,
        response_model=None,
        openapi_extra=_BODY,
        responses={
            201: {"description": "The new version.", "model": version},
            202: {"description": "The new version; its import goes on.", "model": version},
            **problems(404, 409, 415, 422),
        },
    )
    return router


class _Uploads:
    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    async def look(self, request: Request, sha256: Digest) -> Response:
        refuse_unknown(request, ())
        held = await self._held(sha256, request)
        if held.received_bytes:
            return _held_answer(held, 200)
        none = ArtifactNotFound(f"nothing of {sha256} is held: PUT the file here")
        answer = problem(none, request_id_of(request.scope))
        answer.headers.update(_held_headers(held))
        return answer

    async def put_artifact(self, request: Request, sha256: Digest) -> Response:
        refuse_unknown(request, ())
        _refuse_other_bodies(request)
        held = await self._held(sha256, request)
        if held.complete:
            return _held_answer(held, 200)
        start, size = _extent(request)
        skipped = 0
        if held.received_bytes == size:
            start = skipped = size  # all came before, and the end of that call was cut off
        elif start is None:
            # The whole file once more: what is held of it is passed over.
            start = skipped = held.received_bytes if held.received_bytes < size else 0
        header = model_pb2.UploadHeader(sha256=sha256, size_bytes=size, offset=start)
        try:
            held = await self._send(header, request, skipped)
        except InvalidOffset:
            held = await self._held(sha256, request)
            if not held.complete:
                raise
            return _held_answer(held, 200)  # another caller has sent it meanwhile
        return _held_answer(held, 201 if held.complete else 202)

    def put_model(self) -> Any:
        async def put(request: Request, **given: Any) -> Response:
            refuse_unknown(request, (*_SETTINGS, *_REGISTRATION, "wait", "timeout"))
            _refuse_other_bodies(request)
            if "content-range" in request.headers:
                raise InvalidOption(
                    "a part of a file makes no model: send all of it, without Content-Range, or "
                    "the parts to /v1/artifacts/SHA256"
                )
            registration = _registration(given)
            length = int(request.headers.get("content-length") or 0)
            header = model_pb2.UploadHeader(size_bytes=length)
            stored = await self._send(header, request)
            registration.artifact = stored.sha256
            caller = caller_of(request.scope, "rest", given["timeout"])
            version = (await self._dispatch.unary(REGISTER, registration, caller)).version
            key = version.version
            headers = {"Location": f"/v1/models/{key.model}@{key.version}"}
            return json_answer(version, 201 if registration.wait else 202, headers)

        wait = Annotated[bool, Query(description="Answer when it is imported.")]
        return with_parameters(
            put,
            (
                parameter("model", Annotated[str, Path(description="name or team/name.")]),
                *query_parameters(types_pb2.VersionSettings.DESCRIPTOR, _SETTINGS),
                *query_parameters(model_pb2.RegisterModelRequest.DESCRIPTOR, _REGISTRATION),
                parameter("wait", wait, True),
                parameter("timeout", Timeout, None),
            ),
        )

    async def _held(self, sha256: str, request: Request) -> model_pb2.UploadArtifactResponse:
        """What is stored of a file: a header alone asks for that, whatever size it says."""
        header = model_pb2.UploadHeader(sha256=sha256, size_bytes=1)
        question = _messages(header, request, skipped=None)
        held: model_pb2.UploadArtifactResponse = await self._dispatch.unary(
            UPLOAD, question, caller_of(request.scope, "rest")
        )
        return held

    async def _send(
        self, header: model_pb2.UploadHeader, request: Request, skipped: int = 0
    ) -> model_pb2.UploadArtifactResponse:
        async with aclosing(_messages(header, request, skipped)) as messages:
            held: model_pb2.UploadArtifactResponse = await self._dispatch.unary(
                UPLOAD, messages, caller_of(request.scope, "rest")
            )
        return held


async def _messages(
    header: model_pb2.UploadHeader, request: Request, skipped: int | None
) -> AsyncGenerator[model_pb2.UploadArtifactRequest, None]:
    """The header, and the body less its first `skipped` bytes; None: no body."""
    yield model_pb2.UploadArtifactRequest(header=header)
    if skipped is None:
        return
    try:
        async for piece in request.stream():
            passed = min(skipped, len(piece))
            skipped -= passed
            for at in range(passed, len(piece), _CHUNK_BYTES):
                yield model_pb2.UploadArtifactRequest(chunk=piece[at : at + _CHUNK_BYTES])
    except ClientDisconnect:
        raise Cancelled("the caller left before the end of the file") from None


def _registration(given: dict[str, Any]) -> model_pb2.RegisterModelRequest:
    """What is to be registered, refused before its file is sent where it can't be."""
    request = model_pb2.RegisterModelRequest(name=check_name(given["model"]), wait=given["wait"])
    named = {name: given[name] for name in _REGISTRATION if given[name] is not None}
    parsed(named, request)
    asked = {name: given[name] for name in _SETTINGS if given[name] not in (None, [])}
    check_settings(parsed(asked, request.settings))
    return request


def _extent(request: Request) -> tuple[int | None, int]:
    """Where the body begins in the file, None: it is the whole, and the size of the file."""
    length = int(request.headers.get("content-length") or 0)
    said = request.headers.get("content-range")
    if said is None:
        if not length:
            raise InvalidOption("the request says no Content-Length: send a file of known size")
        return None, length
    found = _RANGE.fullmatch(said)
    if found is None:
        raise InvalidOffset(f"Content-Range {said[:80]!r} is not known: give bytes FIRST-LAST/SIZE")
    first, last, size = map(int, found.groups())
    if not first <= last < size or (length and length != last - first + 1):
        raise InvalidOffset(f"Content-Range {said[:80]!r} does not fit a body of {length} bytes")
    return first, size


def _refuse_other_bodies(request: Request) -> None:
    """Raises InvalidOption for a body that says it is no file of a model, HTTPException for a
    packed one, which would be stored as it is.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "a packed body is not taken: leave Content-Encoding out")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/") or kind == "application/json":
        raise InvalidOption(f"the body is {kind}: send the file itself, curl -T FILE URL")


def _held_answer(held: model_pb2.UploadArtifactResponse, status: int) -> Response:
    return json_answer(held, status, _held_headers(held))


def _held_headers(held: model_pb2.UploadArtifactResponse) -> dict[str, str]:
    return {
        "Upload-Offset": str(held.received_bytes),
        "Upload-Complete": "?1" if held.complete else "?0",
    }
