"""An endpoint of HTTP for a method of a service, as a row of the table of routes says it."""

import inspect
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute

from control_plane.gateway.admin.comments import comment_of
from control_plane.gateway.admin.schemas import parsed, schema_of, type_of
from control_plane.gateway.connection.envelope import caller_of, request_id_of
from control_plane.gateway.dispatch import Dispatch
from control_plane.gateway.openapi import PROBLEMS
from control_plane.gateway.problem import problem
from control_plane.gateway.proto_json import dumps
from yolopool.errors import InvalidOption, YolopoolError
from yolopool.v1 import (
    alerts_pb2,
    aliases_pb2,
    bench_pb2,
    certificates_pb2,
    events_pb2,
    explain_pb2,
    families_pb2,
    fleet_pb2,
    keys_pb2,
    model_pb2,
    rollouts_pb2,
    rules_pb2,
    schedule_pb2,
    tenants_pb2,
    watches_pb2,
)

_FILES = (
    alerts_pb2,
    aliases_pb2,
    bench_pb2,
    certificates_pb2,
    events_pb2,
    families_pb2,
    explain_pb2,
    fleet_pb2,
    keys_pb2,
    model_pb2,
    rules_pb2,
    rollouts_pb2,
    schedule_pb2,
    tenants_pb2,
    watches_pb2,
)
SERVICES = {
    name: service for file in _FILES for name, service in file.DESCRIPTOR.services_by_name.items()
}

NO_BODY = "-"
MAX_TIMEOUT_S = 86_400.0
# Not given: None.
Timeout = Annotated[
    float,
    Query(
        gt=0,
        le=MAX_TIMEOUT_S,
        allow_inf_nan=False,
        description="Seconds after which the call gives up; what was begun goes on.",
    ),
]
# JSON may have these as they are, and many libraries split lines there.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_ALWAYS = (400, 429, 500, 503, 504, 507)


class JsonLines(StreamingResponse):
    media_type = "application/x-ndjson"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint.

    `path`: its parameters are fields of the request, or of the field that is the body. `body`: the
    field of the request that the JSON body is; empty: the request, less what path and query have.
    `query`: fields of the request. `answer`: the field of the reply that is answered; empty: all of
    it. `status` when the work is done; without `wait` it goes on, and 202 is answered.
    """

    verb: str
    path: str
    rpc: str
    name: str = ""
    body: str = NO_BODY
    body_may_lack: bool = False
    query: tuple[str, ...] = ()
    answer: str = ""
    status: int = 200
    errors: tuple[int, ...] = ()


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a path may answer beside its success, for the OpenAPI document."""
    return {status: PROBLEMS[status] for status in sorted((*_ALWAYS, *statuses))}


def method_of(route: Route) -> MethodDescriptor:
    service, _, name = route.rpc.partition("/")
    method: MethodDescriptor = SERVICES[service].methods_by_name[name]
    return method


@cache
def endpoint_of(route: Route) -> BaseRoute:
    """The endpoint of a route; it calls the dispatch that the state of its application has. Made
    once a process, since FastAPI takes a millisecond for each.
    """
    method = method_of(route)
    endpoint = _Endpoint(route, method)
    about = comment_of(method.full_name)
    answers: dict[int | str, dict[str, Any]] = {route.status: endpoint.answer_documented()}
    if "wait" in method.input_type.fields_by_name:
        answers[202] = {**answers[route.status], "description": "It was begun, and goes on."}
    router = APIRouter()
    router.add_api_route(
        route.path,
        endpoint.handler(),
        methods=[route.verb],
        operation_id=route.name or method.name,
        summary=about.partition(". ")[0].rstrip("."),
        description=about,
        status_code=route.status,
        response_model=None,
        response_class=JsonLines if method.server_streaming else JSONResponse,
        responses={**answers, **problems(*route.errors)},
        tags=[route.rpc.partition("Service")[0].lower()],
    )
    (made,) = router.routes
    return made


class _Endpoint:
    def __init__(self, route: Route, method: MethodDescriptor) -> None:
        self._route = route
        self._rpc = f"/{method.containing_service.full_name}/{method.name}"
        self._asked: Descriptor = method.input_type
        self._request = message_factory.GetMessageClass(method.input_type)
        self._reply: Descriptor = method.output_type
        self._streams = method.server_streaming
        self._waits = "wait" in self._asked.fields_by_name
        self._in_path = _names_in(route.path)
        self._in_query = (*route.query, *(("wait",) if self._waits else ()))

    # --- the document -------------------------------------------------------------------------

    def answer_documented(self) -> dict[str, Any]:
        if self._route.status == 204:
            return {"description": "Done."}
        if self._streams:
            words = "A line of JSON for each reply; the last may be a problem."
            return {"description": words, "model": schema_of(self._reply)}
        return {"description": "Done.", "model": schema_of(self._answered())}

    def _answered(self) -> Descriptor:
        return _within(self._reply, self._route.answer)

    # --- the function that FastAPI calls ------------------------------------------------------

    def handler(self) -> Any:
        async def handle(request: Request, **given: Any) -> Response:
            refuse_unknown(request, (*self._in_query, "timeout"))
            message = self._message(given)
            caller = caller_of(request.scope, "rest", given["timeout"])
            dispatch: Dispatch = request.app.state.dispatch
            if self._streams:
                replies = dispatch.stream(self._rpc, message, caller)
                return await self._stream(replies, request_id_of(request.scope))
            return self._response(await dispatch.unary(self._rpc, message, caller), given)

        return with_parameters(handle, self._parameters())

    def _parameters(self) -> Iterator[inspect.Parameter]:
        for name in self._in_path:
            about = comment_of(self._field(name).full_name) or None
            yield parameter(name, Annotated[str, Path(description=about)])
        yield from query_parameters(self._asked, self._in_query)
        yield parameter("timeout", Timeout, None)
        if self._route.body != NO_BODY:
            schema = self._body_schema()
            default = schema() if self._route.body_may_lack else inspect.Parameter.empty
            yield parameter("body", Annotated[schema, Body()], default)

    def _body_schema(self) -> type[BaseModel]:
        of = _within(self._asked, self._route.body)
        if of is not self._asked:
            return schema_of(of)
        less = frozenset((*self._in_path, *self._in_query))
        return schema_of(of, less, f"{self._route.rpc.partition('/')[2]}Body")

    def _field(self, name: str) -> FieldDescriptor:
        if name in self._asked.fields_by_name:
            return self._asked.fields_by_name[name]
        return _within(self._asked, self._route.body).fields_by_name[name]

    def _message(self, given: dict[str, Any]) -> Message:
        message = self._request()
        body = given.get("body")
        part = message
        if self._route.body not in ("", NO_BODY):
            part = getattr(message, self._route.body)
            part.SetInParent()
        if body is not None:
            parsed(body.model_dump(exclude_unset=True), part)
        for name in self._in_path:
            of = message if name in self._asked.fields_by_name else part
            said = getattr(of, name)
            if said and said != given[name]:
                raise InvalidOption(
                    f"{name} is {given[name][:80]!r} in the path and {said[:80]!r} in the body"
                )
            parsed({name: given[name]}, of)
        asked = {name: given[name] for name in self._in_query if given[name] is not None}
        return parsed(asked, message)

    def _response(self, reply: Message, given: dict[str, Any]) -> Response:
        status = 202 if self._waits and not given["wait"] else self._route.status
        if status == 204:
            return Response(status_code=204)
        answer: Any = getattr(reply, self._route.answer) if self._route.answer else reply
        headers = {}
        if self._route.status == 201 and "version" in answer.DESCRIPTOR.fields_by_name:
            headers["Location"] = f"/v1/models/{answer.version.model}@{answer.version.version}"
        if "secret" in answer.DESCRIPTOR.fields_by_name:
            headers["Cache-Control"] = "no-store"
        return json_answer(answer, status, headers)

    async def _stream(self, replies: AsyncIterator[Any], request_id: str) -> Response:
        # What is refused at once is an error of its own status.
        first = await anext(replies, None)

        async def lines() -> AsyncIterator[bytes]:
            async with aclosing(replies):  # type: ignore[type-var] # a generator
                reply = first
                while reply is not None:
                    yield f"{one_line(reply)}\n".encode()
                    try:
                        reply = await anext(replies, None)
                    except YolopoolError as error:
                        yield bytes(problem(error, request_id).body) + b"\n"
                        return

        return JsonLines(lines())


def json_answer(
    message: Message, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(dumps(message), status, headers, media_type="application/json")


def one_line(message: Message) -> str:
    """A message as JSON without anything that a reader may take for the end of a line."""
    return dumps(message).decode().translate(_LINE_ENDS)


def refuse_unknown(request: Request, known: Iterable[str]) -> None:
    """Raises InvalidOption for a query parameter that nobody reads: it may be misspelt."""
    unknown = sorted(request.query_params.keys() - set(known))
    if unknown:
        raise InvalidOption(
            f"query parameter {unknown[0][:80]!r} is not known: {', '.join(known) or 'none is'}"
        )


def with_parameters(handle: Any, parameters: Iterable[inspect.Parameter]) -> Any:
    """The function as FastAPI is to see it: `handle(request, **given)` with these parameters."""
    all_of_them = [parameter("request", Request), *parameters]
    handle.__signature__ = inspect.Signature(all_of_them)
    return handle


def query_parameters(of: Descriptor, names: Iterable[str]) -> Iterator[inspect.Parameter]:
    """Fields of a message as parameters of the query; of one that is not given: None, or []."""
    for name in names:
        field = of.fields_by_name[name]
        kind: Any = type_of(field)
        about = Query(description=comment_of(field.full_name) or None)
        yield parameter(name, Annotated[kind, about], [] if field.is_repeated else None)


def parameter(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _names_in(path: str) -> tuple[str, ...]:
    parts = path.split("{")[1:]
    return tuple(part.partition("}")[0].partition(":")[0] for part in parts)


def _within(descriptor: Descriptor, field: str) -> Descriptor:
    """The message that a field holds; that of the descriptor itself without one."""
    of = descriptor.fields_by_name[field].message_type if field else descriptor
    assert of is not None, f"{field} of {descriptor.full_name} holds no message: this is a bug"
    return of
