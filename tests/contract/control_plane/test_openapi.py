"""Every route of the OpenAPI document, by right and wrong requests that are made from it: none
makes the server fail, and what comes back is what the document says.
"""

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.contract.control_plane_rig import Rig
from tests.matrix import SEED, is_full

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# All routes together.
FULL_CASES, SAMPLE_CASES = 2000, 80
MODEL = "shapes"
# What a caller of the pool waits for is not what is tested here.
TIMEOUT_S = "0.3"
# Not to be had on a pool without a fault; the document says that they may come.
AWAY = {503, 504}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The HTTP port of a control plane with a model and a worker, on a loop of its own."""
    started: Future[str] = Future()
    ended: list[Any] = []

    async def serve() -> None:
        end = asyncio.Event()
        ended.append((asyncio.get_running_loop(), end))
        async with Rig(tmp_path_factory.mktemp("openapi"), default_deadline_s=0.3) as rig:
            await rig.worker("w1")
            await rig.ready(MODEL)
            await rig.load(MODEL)
            started.set_result(f"http://{rig.addresses.http}")
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield started.result(30)
    finally:
        loop, end = ended[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(30)


@pytest.fixture(scope="module")
def document(address: str) -> dict[str, Any]:
    told: dict[str, Any] = httpx.get(f"{address}/openapi.json").json()
    return told


def operations(document: dict[str, Any]) -> list[Any]:
    schema = schemathesis.openapi.from_dict(document)
    found: Any = schema.get_all_operations()
    return [one.ok() for one in found]


@pytest.mark.timeout(1800)
def test_no_request_makes_it_fail(address: str, document: dict[str, Any]) -> None:
    tried: Counter[str] = Counter()
    routes = operations(document)
    wanted = FULL_CASES if is_full() else SAMPLE_CASES
    each = wanted // (2 * len(routes)) + 1
    first = int(os.environ[SEED])
    with requests.Session() as session:
        # Of some routes there are few cases: the others get more turns.
        for turn in range(first, first + 100):
            for route in routes:
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    run_cases(route, mode, each, turn, address, session, tried)
            if tried["cases"] >= wanted:
                break
    assert tried["cases"] >= wanted, tried
    if is_full():  # a sample has few cases of each route
        assert tried["POST /v1/detect 200"], tried
        assert tried["POST /v1/detect 400"], tried


def run_cases(
    route: Any,
    mode: GenerationMode,
    count: int,
    turn: int,
    address: str,
    session: requests.Session,
    tried: "Counter[str]",
) -> None:
    named = {parameter.name for parameter in route.query}

    @seed(turn)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=route.as_strategy(generation_mode=mode), is_known=st.booleans())
    def cases(case: Any, is_known: bool) -> None:
        query = dict(case.query or {})
        body = case.body if isinstance(case.body, dict) else {}
        # Names that are drawn are those of no model.
        if is_known:
            if "model" in named and "model" not in body:
                query["model"] = MODEL
            if "model" in (case.path_parameters or {}):
                case.path_parameters = {**case.path_parameters, "model": MODEL}
        if "timeout" in named:
            query["timeout"] = TIMEOUT_S
        if "follow" in named:
            query["follow"] = "false"  # its answer would have no end
        case.query = query
        answer = case.call(base_url=address, session=session, timeout=30)
        tried["cases"] += 1
        tried[f"{route.method.upper()} {route.path} {answer.status_code}"] += 1
        checks = CHECKS if answer.status_code not in AWAY else CHECKS[1:]
        case.validate_response(answer, checks=checks)

    try:
        cases()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # of what takes nothing, nothing is wrong
    except Exception as error:
        error.add_note(f"{route.method.upper()} {route.path}, {mode.value}")
        raise


def test_the_document_says_what_errors_are(document: dict[str, Any]) -> None:
    reference = {"schema": {"$ref": "#/components/schemas/Problem"}}
    assert document["components"]["schemas"]["Problem"]["required"]
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            assert told.get("summary"), f"{method} {path} says nothing"
            for status, answer in told["responses"].items():
                where = f"{method} {path} {status}"
                assert answer["description"], where
                is_error = status == "default" or int(status) >= 400
                if is_error and "/readyz" not in path:
                    content = answer.get("content", {})
                    assert content.get("application/problem+json", reference) == reference, where
    assert "HTTPValidationError" not in str(document)
