"""Every method that operators call has a path, and the document tells all of it."""

import json
from typing import Any

import pytest
from fastapi import FastAPI

from control_plane.gateway import openapi
from control_plane.gateway.admin.endpoints import SERVICES
from control_plane.gateway.admin.event_stream import WATCH, event_routes
from control_plane.gateway.admin.routes import ROUTES, admin_routes
from control_plane.gateway.admin.uploads import UPLOAD, upload_routes
from control_plane.gateway.cameras import camera_routes
from control_plane.gateway.dispatch import Caller, Dispatch
from yolopool.server.open_calls import OpenCalls


async def nobody(caller: Caller) -> list[str]:
    return []


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    dispatch = Dispatch([], OpenCalls())
    app = FastAPI()
    for door in (
        event_routes(dispatch),
        admin_routes(),
        upload_routes(dispatch),
        camera_routes(dispatch, "", nobody),
    ):
        app.include_router(door)
    return openapi.finish(app.openapi())


def operations(document: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{verb.upper()} {path}": operation
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    }


def test_every_method_has_a_route() -> None:
    routed = {route.rpc for route in ROUTES} | {
        method.removeprefix("/yolopool.v1.") for method in (WATCH, UPLOAD)
    }
    there = {
        f"{service.name}/{method.name}"
        for service in SERVICES.values()
        for method in service.methods
    }
    # What processes of the pool ask, by gRPC alone.
    assert (
        routed | {f"CertificateService/{verb}Certificate" for verb in ("Issue", "Renew")} == there
    )


def test_every_field_of_a_request_can_be_said(document: dict[str, Any]) -> None:
    described = operations(document)
    schemas = document["components"]["schemas"]
    for route in ROUTES:
        if route.name:  # it takes away what another route sets
            continue
        service, _, method = route.rpc.partition("/")
        request = SERVICES[service].methods_by_name[method].input_type
        operation = described[f"{route.verb} {route.path.replace(':path', '')}"]
        said = {one["name"] for one in operation.get("parameters", [])}
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None:
            inside = schemas[body["schema"]["$ref"].rpartition("/")[2]]["properties"]
            said |= {route.body} if route.body else inside.keys()
        assert {field.name for field in request.fields} <= said, route


def test_paths_differ_and_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document).values()]
    assert len(names) == len(set(names))
    assert len({(route.verb, route.path) for route in ROUTES}) == len(ROUTES)


def test_every_operation_is_described_with_what_it_may_answer(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        assert operation["summary"], name
        statuses = operation["responses"].keys()
        assert any(status.startswith("2") for status in statuses), name
        if not name.partition(" ")[2].startswith("/v1/vision"):
            assert {"400", "429", "500", "503", "504"} <= statuses, name
        for status in statuses:
            assert operation["responses"][status]["description"], (name, status)


def test_what_is_referred_to_is_there(document: dict[str, Any]) -> None:
    for reference in json.dumps(document).split('"$ref": "#/components/schemas/')[1:]:
        assert reference.partition('"')[0] in document["components"]["schemas"]
