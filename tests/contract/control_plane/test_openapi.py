"""Every route of the OpenAPI document, by right and wrong requests that are made from it: none
makes the server fail, and what comes back is what the document says.
"""

import asyncio
import hashlib
import os
import threading
import time
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

from control_plane.store.alerts.alert_codec import encode_state
from control_plane.store.alerts.alert_verbs import AlertSettings
from control_plane.store.memory_registry import MemoryRegistry
from control_plane.types.access.api_key import ApiKey, Joining, Role, SecretHash
from control_plane.types.alerts.alert_setting import Silence
from control_plane.types.alerts.alert_state import AlertState, Stage
from tests.contract.alert_rig import Receiver, alerts
from tests.contract.control_plane.test_gates import a_zip
from tests.contract.control_plane_rig import Rig
from tests.matrix import SEED, is_full
from tests.waiting import answered
from yolopool.tls import authority, signing

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# All routes together.
FULL_CASES, SAMPLE_CASES = 2000, 80
# Reads and detects are of MODEL. What is drawn for CHANGED may put it where no worker is.
MODEL, CHANGED = "shapes", "changed"
DELETE_MODEL = "DELETE /v1/models/{model}"
# What a caller of the pool waits for is not what is tested here.
TIMEOUT_S = "0.3"
# Not to be had on a pool without a fault; the document says that they may come.
AWAY = {503, 504}


# Of a caller whose secret nobody has.
JOINED = ApiKey(
    "abcdef0123", "", "", Role.JOIN, (), (), 1.0, joins=Joining(Role.WORKER, "gpu-1", (), 1.0, 9e9)
)
# It has ended, and is listed for an hour.
ALERT = AlertState(
    "YolopoolTwoLeaders", "", Stage.RESOLVED, 1.0, 2.0, time.time(), changed_unix_s=3.0
)
KEY = ApiKey("0123456789", "", "", Role.DETECT, ("*",), (SecretHash("00", "00"),), 1.0)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The HTTP port of a control plane with a model and a worker, on a loop of its own."""
    started: Future[str] = Future()
    ended: list[Any] = []

    async def serve() -> None:
        end = asyncio.Event()
        ended.append((asyncio.get_running_loop(), end))
        folder = tmp_path_factory.mktemp("openapi")
        registry = MemoryRegistry()
        await registry.alert_records.put_states({ALERT.key: encode_state(ALERT)}, None)
        await AlertSettings(registry).put(Silence("quiet1", "*", "*", 9e9))
        async with Rig(
            folder,
            registry,
            alerts_every_s=0.2,
            default_deadline_s=0.3,
            camera_model=MODEL,
            source_roots=["/srv"],
            webhook_private_networks=["127.0.0.0/8"],
        ) as rig:
            await rig.registry.put_api_key(KEY)
            await rig.registry.put_api_key(JOINED)
            # Without keys and TLS none is given an authority: this one signs all the same.
            authority.create(folder / "certs", time.time())
            signer = signing.read(folder / "certs" / "ca.pem", folder / "certs" / "ca.key")
            rig.plane._services._certificates._signer = signer
            await rig.worker("w1", kind="cpu")
            await rig.worker("spare")
            await rig.ready(MODEL, CHANGED)
            await rig.register(CHANGED, CHANGED.encode())  # once more: it has two versions
            await rig.load(MODEL)
            await rig.upload(IMAGES)
            await answered(lambda: alerts(rig), lambda seen: ALERT.id in {one.id for one in seen})
            started.set_result(f"http://{rig.addresses.http}")
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        with Receiver() as receiver:
            RIGHT["PUT /v1/alerts/webhooks/{name}"] = (
                {"name": "ops"},
                {"json": {"url": receiver.url}},
            )
            yield started.result(30)
    finally:
        loop, end = ended[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(30)


@pytest.fixture(scope="module")
def document(address: str) -> dict[str, Any]:
    told: dict[str, Any] = httpx.get(f"{address}/openapi.json", timeout=60).json()
    return told


def operations(document: dict[str, Any]) -> list[Any]:
    schema = schemathesis.openapi.from_dict(document)
    found: Any = schema.get_all_operations()
    return [one.ok() for one in found]


DATA = b"weights of its own"
DIGEST = hashlib.sha256(DATA).hexdigest()
IMAGES = a_zip({"a.jpg": b"1", "a.txt": "0 .5 .5 .2 .2"})
IMAGES_DIGEST = hashlib.sha256(IMAGES).hexdigest()
CHANGE = {"prepare": [{"model": MODEL}]}
OF_MODEL, FORM = {"model": MODEL}, {"files": {"image": b"jpeg"}}
OF_ALIAS = {"alias": f"{CHANGED}:stable"}
# One right request for each operation, in this order: what goes into its path, and the rest.
RIGHT: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "GET /livez": ({}, {}),
    "GET /readyz": ({}, {}),
    "POST /v1/detect": (
        {}, {"params": OF_MODEL, "data": b"jpeg", "headers": {"x-request-id": "seen"}},
    ),
    "GET /v1/requests/{request_id}/explain": ({"request_id": "seen"}, {}),
    "PUT /v1/artifacts/{sha256}": ({"sha256": DIGEST}, {"data": DATA}),
    "GET /v1/artifacts/{sha256}": ({"sha256": DIGEST}, {}),
    "POST /v1/models": ({}, {"json": {"name": "more", "artifact": DIGEST}}),
    "PUT /v1/models/{model}": ({"model": "more"}, {"params": {"wait": "false"}, "data": DATA}),
    "DELETE /v1/models/{model}": ({"model": "more"}, {}),
    "GET /v1/models": ({}, {}),
    "GET /v1/models/{model}": (OF_MODEL, {}),
    "GET /v1/models/{model}/ready": (OF_MODEL, {}),
    "GET /v1/models/{model}/explain": (OF_MODEL, {}),
    "POST /v1/models/{model}/load": (OF_MODEL, {"params": {"wait": "true"}, "json": {}}),
    "PUT /v1/models/{model}/residency": (OF_MODEL, {"json": {}}),
    "PUT /v1/models/{model}/labels": (OF_MODEL, {"json": {"labels": {"line": "7"}}}),
    "PUT /v1/models/{model}/placement": (OF_MODEL, {"json": {"labels": {}}}),
    "PUT /v1/models/{model}/batching/{device_kind}": (
        {**OF_MODEL, "device_kind": "cpu"}, {"json": {"max_batch": 2}},
    ),
    "DELETE /v1/models/{model}/batching/{device_kind}": ({**OF_MODEL, "device_kind": "cpu"}, {}),
    "POST /v1/models/{model}/builds": (
        OF_MODEL, {"json": {"backend": "torch", "precision": "bf16", "device_kind": "cpu"}},
    ),
    "PUT /v1/models/{model}/variant/{device_kind}": (
        {**OF_MODEL, "device_kind": "cpu"}, {"json": {"variant": "torch/bf16"}},
    ),
    "DELETE /v1/models/{model}/variant/{device_kind}": ({**OF_MODEL, "device_kind": "cpu"}, {}),
    "PUT /v1/models/{model}/gate": (OF_MODEL, {"json": {"data": IMAGES_DIGEST, "min_map50": 0.5}}),
    "GET /v1/rules": ({}, {}),
    "DELETE /v1/models/{model}/gate": (OF_MODEL, {}),
    "POST /v1/store/rules": ({}, {"json": {"pattern": "more*", "keep_versions": 3}}),
    "POST /v1/models/{model}/bench": (OF_MODEL, {"json": {"sweep": {"batch_sizes": [1]}}}),
    "POST /v1/models/{model}/promote": (
        {"model": f"{CHANGED}@1"}, {"params": {"wait": "true"}, "json": {"alias": "stable"}},
    ),
    "PUT /v1/aliases/{alias}": (
        OF_ALIAS, {"json": {"targets": [{"version": 2, "weight": 1000}]}},
    ),
    "GET /v1/aliases/{alias}": (OF_ALIAS, {}),
    "GET /v1/aliases": ({}, {"params": {"name_prefix": CHANGED}}),
    "POST /v1/aliases/{alias}/rollout": (
        OF_ALIAS, {"json": {"candidate": 1, "plan": {"steps": [0], "tolerance": {"lost": 0.4}}}},
    ),
    "GET /v1/aliases/{alias}/rollout": (OF_ALIAS, {}),
    "GET /v1/aliases/{alias}/disagreements": (OF_ALIAS, {}),
    "GET /v1/rollouts": ({}, {"params": {"name_prefix": CHANGED}}),
    "DELETE /v1/aliases/{alias}/rollout": (OF_ALIAS, {"params": {"why": "seen enough"}}),
    "POST /v1/aliases/{alias}/rollback": (OF_ALIAS, {"params": {"wait": "true"}, "json": {}}),
    "DELETE /v1/aliases/{alias}": (OF_ALIAS, {}),
    "POST /v1/plan": ({}, {"json": OF_MODEL}),
    "POST /v1/changeovers": ({}, {"json": CHANGE}),
    "PUT /v1/aliases/{alias}/family": (
        {"alias": "site:any"},
        {"json": {"family": {"members": [{"model": MODEL}, {"model": CHANGED}]}, "no_load": True}},
    ),
    "GET /v1/aliases/{alias}/family": ({"alias": "site:any"}, {}),
    "PUT /v1/schedules/{name}": (
        {"name": "seven"}, {"json": {"cron": "0 7 * * *", "change": CHANGE}},
    ),
    "GET /v1/schedules/{name}": ({"name": "seven"}, {}),
    "GET /v1/schedules": ({}, {}),
    "DELETE /v1/schedules/{name}": ({"name": "seven"}, {}),
    "POST /v1/vision/detection": ({}, FORM),
    "POST /v1/vision/custom/{model}": (OF_MODEL, FORM),
    "GET /v1/vision/list": ({}, {}),
    "POST /v1/vision/list": ({}, {}),
    "GET /v1/vision/custom/list": ({}, {}),
    "POST /v1/vision/custom/list": ({}, {}),
    "GET /v1/fleet": ({}, {}),
    "GET /v1/statistics": ({}, {}),
    "GET /v1/workers": ({}, {}),
    "GET /v1/workers/{worker}": ({"worker": "w1"}, {}),
    "GET /v1/events": ({}, {}),
    "POST /v1/keys": ({}, {"json": {"role": "ROLE_DETECT"}}),
    "GET /v1/keys": ({}, {}),
    "POST /v1/keys/{id}/rotate": ({"id": KEY.id}, {}),
    "DELETE /v1/keys/{id}": ({"id": KEY.id}, {}),
    "PUT /v1/watches/{name}": (
        {"name": "line7"}, {"json": {"uri": "file:///srv/line7/", "model": "parts"}},
    ),
    "GET /v1/watches": ({}, {}),
    "DELETE /v1/watches/{name}": ({"name": "line7"}, {}),
    "GET /v1/alerts": ({}, {"params": {"stage": "firing"}}),
    "GET /v1/alerts/rules": ({}, {}),
    "POST /v1/alerts/{id}/resolve": ({"id": ALERT.id}, {}),
    "POST /v1/alerts/silences": ({}, {"json": {"rule": "*", "for_s": 60}}),
    "GET /v1/alerts/silences": ({}, {}),
    "DELETE /v1/alerts/silences/{id}": ({"id": "quiet1"}, {}),
    "PUT /v1/alerts/thresholds": (
        {}, {"json": {"rule": "YolopoolBlind", "pattern": MODEL, "value": 5}},
    ),
    "PUT /v1/alerts/webhooks/{name}": ({"name": "ops"}, {}),  # with the address of a receiver
    "GET /v1/alerts/webhooks": ({}, {}),
    "POST /v1/alerts/webhooks/{name}/test": ({"name": "ops"}, {}),
    "DELETE /v1/alerts/webhooks/{name}": ({"name": "ops"}, {}),
    "PUT /v1/tenants/{name}": ({"name": "north"}, {"json": {"limits": {"requests_per_s": 2.5}}}),
    "GET /v1/tenants": ({}, {}),
    "GET /v1/usage": ({}, {"params": {"name": "north", "days": 2}}),
    "DELETE /v1/tenants/{name}": ({"name": "north"}, {"params": {"confirm": "north"}}),
    "GET /v1/certificates": ({}, {}),
    "POST /v1/certificates/join-tokens": ({}, {"json": {"role": "worker"}}),
    "DELETE /v1/certificates/{name}": ({"name": "gpu-1"}, {}),
    "POST /v1/models/{model}/unload": (OF_MODEL, {}),
    "POST /v1/store/sweep": ({}, {"json": {"dry_run": True}}),
    "POST /v1/workers/{worker}/drain": ({"worker": "spare"}, {}),
}  # fmt: skip


def test_right_requests_are_answered_as_the_document_says(
    address: str, document: dict[str, Any]
) -> None:
    routes = {f"{one.method.upper()} {one.path}": one for one in operations(document)}
    assert routes.keys() == RIGHT.keys()
    with requests.Session() as session:
        for name, (in_path, more) in RIGHT.items():
            verb, path = name.split(" ")
            answer = session.request(verb, address + path.format(**in_path), timeout=30, **more)
            assert answer.ok, (name, answer.text)
            case = routes[name].Case(path_parameters=in_path)
            case.validate_response(answer, checks=CHECKS)


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
    assert tried["GET /v1/fleet 200"], tried
    for route in routes:
        assert tried[f"{route.method.upper()} {route.path}"], route
    # What was asked of MODEL was asked of one that is there, to the end.
    still = requests.post(f"{address}/v1/detect", params={"model": MODEL}, data=b"jpeg", timeout=30)
    assert still.status_code == 200, still.text
    away = sum(count for told, count in tried.items() if told.endswith((" 503", " 504")))
    assert away < tried["cases"] / 4, tried
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
    operation = f"{route.method.upper()} {route.path}"

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
            if "model" in (case.path_parameters or {}) and operation != DELETE_MODEL:
                known = MODEL if route.method == "get" or "vision" in route.path else CHANGED
                case.path_parameters = {**case.path_parameters, "model": known}
        if "timeout" in named:
            query["timeout"] = TIMEOUT_S
        if "follow" in named:
            query["follow"] = "false"  # its answer would have no end
        case.query = query
        answer = case.call(base_url=address, session=session, timeout=30)
        tried["cases"] += 1
        tried[operation] += 1
        tried[f"{operation} {answer.status_code}"] += 1
        checks = CHECKS if answer.status_code not in AWAY else CHECKS[1:]
        case.validate_response(answer, checks=checks)

    try:
        cases()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # of what takes nothing, nothing is wrong
    except Exception as error:
        error.add_note(f"{operation}, {mode.value}")
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
