"""The protocol by HTTP, under /v2, with binary tensors. Errors are {"error": "a sentence"}."""

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from fastapi import APIRouter
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from control_plane.gateway.connection.envelope import caller_of, take_room
from control_plane.gateway.dispatch import Caller
from control_plane.gateway.kserve import json_tensors
from control_plane.gateway.kserve.operations import (
    DOOR,
    Operations,
    no_settings,
    no_shared_memory,
)
from control_plane.gateway.problem import headers_of
from yolopool.codes import http_status
from yolopool.errors import Cancelled, InvalidArgument, MessageTooLarge, NotFound
from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.server.open_calls import typed_error
from yolopool.vocabulary import MAX_MESSAGE_BYTES

_JSON_BYTES = "inference-header-content-length"
# Of the path as it was sent, so that %2F in a name never parts it.
_MODEL = re.compile(
    r".*?/v2/models/(?P<name>.+?)(?:/versions/(?P<version>[^/]+))?"
    r"(?:/(?P<verb>ready|config|stats|infer))?"
)
_REPOSITORY = re.compile(r".*?/v2/repository/models/(?P<name>.+)/(?P<verb>load|unload)")
_UNPACKED_AT_ONCE = 4 * 1024
_WBITS_OF_EITHER = 32 + zlib.MAX_WBITS

Answer = Callable[[Request], Awaitable[Response]]


def router(operations: Operations) -> APIRouter:
    """The door's paths; what they are is the protocol's, and not in our OpenAPI document."""
    door = APIRouter(include_in_schema=False)
    pages = _Pages(operations)

    def add(path: str, page: Answer, method: str) -> None:
        door.add_route(path, _guarded(page), [method], include_in_schema=False)

    add("/v2", pages.server, "GET")
    add("/v2/", pages.server, "GET")
    add("/v2/health/live", pages.live, "GET")
    add("/v2/health/ready", pages.ready, "GET")
    settings = ("/v2/trace/setting", "/v2/logging", "/v2/models/{path:path}/trace/setting")
    for path in settings:
        add(path, pages.settings, "GET")
        add(path, pages.settings, "POST")
    add("/v2/models/{path:path}", pages.model, "GET")
    add("/v2/models/{path:path}", pages.infer, "POST")
    add("/v2/repository/index", pages.index, "POST")
    add("/v2/repository/models/{path:path}", pages.repository, "POST")
    for kind in ("systemsharedmemory", "cudasharedmemory"):
        add(f"/v2/{kind}/{{path:path}}", pages.no_regions, "GET")
        add(f"/v2/{kind}/{{path:path}}", pages.shared_memory, "POST")
    return door


class _Pages:
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def server(self, _: Request) -> Response:
        return _message(self._operations.server_metadata())

    async def live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        return _readiness(self._operations.is_ready())

    async def model(self, request: Request) -> Response:
        caller = _caller(request)
        operations = self._operations
        if request.path_params["path"] == "stats":
            return _message(await operations.statistics("", "", caller))
        name, version, verb = _model_of(request)
        match verb:
            case "ready":
                ready = await operations.model_ready(name, version, caller)
                return _readiness(ready, name)
            case "config":
                found = await operations.model_config(name, version, caller)
                return _message(found.config)
            case "stats":
                return _message(await operations.statistics(name, version, caller))
            case "":
                return _message(await operations.model_metadata(name, version, caller))
            case _:
                raise NotFound("infer takes a POST")

    async def infer(self, request: Request) -> Response:
        name, version, verb = _model_of(request)
        if verb != "infer":
            raise NotFound(f"{request.url.path[:200]} takes no POST: .../infer does")
        body = await _body(request)
        asked, binary = json_tensors.infer_request(name, version, body, _json_bytes(request))
        del body
        response = await self._operations.infer(asked, _caller(request))
        content, json_bytes = json_tensors.infer_body(response, binary)
        if json_bytes is None:
            return Response(content, media_type="application/json")
        headers = {_JSON_BYTES: str(json_bytes)}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def index(self, request: Request) -> Response:
        given = json_tensors.parsed(await _body(request))
        asked = kserve.RepositoryIndexRequest(ready=given.get("ready") is True)
        found = await self._operations.index(asked, _caller(request))
        return JSONResponse(json_tensors.plain(found)["models"])

    async def repository(self, request: Request) -> Response:
        match = _REPOSITORY.fullmatch(_raw_path(request))
        if match is None:
            raise NotFound(f"{request.url.path[:200]} is not known: .../NAME/load or .../unload")
        name, caller = unquote(match["name"]), _caller(request)
        given = json_tensors.parsed(await _body(request)).get("parameters") or {}
        names = list(given) if isinstance(given, dict) else ["parameters"]
        if match["verb"] == "load":
            load = kserve.RepositoryModelLoadRequest(model_name=name)
            for parameter in names:
                load.parameters[parameter].bool_param = True
            await self._operations.load(load, caller)
        else:
            unload = kserve.RepositoryModelUnloadRequest(model_name=name)
            for parameter in names:
                unload.parameters[parameter].bool_param = True
            await self._operations.unload(unload, caller)
        return JSONResponse({})

    async def no_regions(self, _: Request) -> Response:
        return JSONResponse([])

    async def shared_memory(self, request: Request) -> Response:
        if request.url.path.endswith("/unregister"):
            return JSONResponse({})
        raise no_shared_memory()

    async def settings(self, _: Request) -> Response:
        raise no_settings()


def _guarded(page: Answer) -> Answer:
    """Errors of the door are JSON with a sentence, as the protocol has them."""

    async def answer(request: Request) -> Response:
        try:
            return await page(request)
        except ClientDisconnect:
            return failure(Cancelled("the caller left"), request)
        except Exception as error:
            return failure(error, request)

    return answer


def failure(error: Exception, request: Request) -> Response:
    """An error in the form of the protocol."""
    typed = typed_error(error, request.url.path)
    fields = {"error": typed.message, "reason": typed.reason, "retryable": typed.retryable}
    if "request_id" in typed.details:
        fields["request_id"] = typed.details["request_id"]
    return JSONResponse(fields, http_status(typed.code, typed.reason), headers_of(typed))


def _message(message: Message) -> Response:
    return JSONResponse(json_tensors.plain(message))


def _readiness(ready: bool, name: str = "") -> Response:
    said = {"name": name, "ready": ready} if name else {"ready": ready}
    return JSONResponse(said, 200 if ready else 503)


def _caller(request: Request) -> Caller:
    return caller_of(request.scope, DOOR)


def _raw_path(request: Request) -> str:
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    return raw.partition(b"?")[0].decode("latin-1")


def _model_of(request: Request) -> tuple[str, str, str]:
    match = _MODEL.fullmatch(_raw_path(request))
    if match is None:
        raise NotFound(f"{request.url.path[:200]} is not known: /v2/models/NAME")
    return unquote(match["name"]), unquote(match["version"] or ""), match["verb"] or ""


def _json_bytes(request: Request) -> int | None:
    given = request.headers.get(_JSON_BYTES)
    if given is None:
        return None
    if not given.isascii() or not given.isdecimal() or len(given) > 12:
        raise InvalidArgument(f"Inference-Header-Content-Length is {given[:80]!r}: give a number")
    return int(given)


async def _body(request: Request) -> bytes:
    """The whole body, unpacked. Raises MessageTooLarge."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_MESSAGE_BYTES:
            raise _too_large()
        parts.append(part)
    body = b"".join(parts)
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity" or not body:
        return body
    if encoding not in ("gzip", "deflate"):
        raise InvalidArgument(f"Content-Encoding {encoding[:80]!r} is not known: gzip or deflate")
    # A few bytes may become many: small ones only are unpacked at once.
    if len(body) < _UNPACKED_AT_ONCE:
        data = _unpacked(body)
    else:
        data = await asyncio.to_thread(_unpacked, body)
    take_room(request.scope, len(data))
    return data


def _unpacked(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(_WBITS_OF_EITHER)
    try:
        data = unpacker.decompress(body, MAX_MESSAGE_BYTES + 1)
    except zlib.error as error:
        raise InvalidArgument(f"the body is not packed as Content-Encoding says: {error}") from None
    if len(data) > MAX_MESSAGE_BYTES:
        raise _too_large()
    if not unpacker.eof:
        raise InvalidArgument("the packed body is cut off: send all of it")
    if unpacker.unused_data:
        raise InvalidArgument("bytes follow the packed body: pack all of it as one")
    return data


def _too_large() -> Exception:
    return MessageTooLarge(
        f"the body is larger than {MAX_MESSAGE_BYTES} bytes: send fewer images at once, or encoded "
        "ones"
    )
