"""Who may ask for what by HTTP: every route by every kind of caller, through a real server."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from control_plane.gateway.admin.endpoints import method_of
from control_plane.gateway.admin.event_stream import WATCH
from control_plane.gateway.admin.routes import ROUTES
from control_plane.gateway.admin.uploads import UPLOAD
from control_plane.gateway.dispatch import Caller
from control_plane.identity.access import OPEN, PAGE, PAGES, RULES, About, Rule
from control_plane.types.access.api_key import Role
from tests.contract.guarded_rig import (
    LIMITED,
    LIMITED_TO_B,
    NO_ROLE,
    REFUSED,
    Guarded,
    role_of,
)
from tests.contract.oidc_issuer import OidcIssuer
from yolopool.client.async_client import AsyncClient
from yolopool.errors import (
    CredentialsInvalid,
    FailedPrecondition,
    GrantNeeded,
    ModelNotFound,
    RequestNotFound,
)
from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.kserve import grpc_service_pb2_grpc as kserve_grpc
from yolopool.transport import bearer
from yolopool.v1 import detection_pb2, explain_pb2, model_pb2, schedule_pb2

_V1, _KSERVE = "/yolopool.v1.", "/inference.GRPCInferenceService/"
# Asked in the console's own tests: it goes on for those that may see it.
ENDLESS = "/console/stream"
_DETECT = RULES[f"{_V1}DetectionService/Detect"]
_READY = Rule(Role.DETECT, About.MODEL)
PICTURE = {"image": ("a.jpg", b"jpeg")}
# What routes need that are not in the table. None: it answers everyone.
OTHERS: dict[str, Rule | None] = {
    "POST /v1/detect": _DETECT,
    "GET /v1/events": RULES[WATCH],
    "GET /v1/artifacts/{sha256}": RULES[UPLOAD],
    "PUT /v1/artifacts/{sha256}": RULES[UPLOAD],
    "PUT /v1/models/{model:path}": Rule(Role.OPERATE, About.MODEL),
    "GET /v1/models/{model:path}/ready": _READY,
    "POST /v1/vision/detection": PAGE,
    "POST /v1/vision/custom/{model:path}": _DETECT,
    **{f"{verb} /v1/vision/list": PAGE for verb in ("GET", "POST")},
    **{f"{verb} /v1/vision/custom/list": PAGE for verb in ("GET", "POST")},
    "POST /v1/vision/{other:path}": PAGE,
    "GET /v1/status/ping": PAGE,
    "GET /v1/status/updateavailable": PAGE,
    "GET /": PAGES["/"],
    "GET /metrics": PAGES["/metrics"],
    **{f"GET {path}": PAGE for path in ("/docs", "/docs/{name}", "/openapi.json")},
    **{f"GET {path}": None for path in OPEN if "." not in path},
    **{
        f"GET /console{path}": None
        for path in ("", "/", "/{name}", "/static/{path:path}", "/session")
    },
    "POST /console/session": None,
    "DELETE /console/session": None,
    **{f"GET {path}": PAGES[path] for path in (ENDLESS, "/console/findings")},
    "GET /v2": PAGE,
    "GET /v2/": PAGE,
    "GET /v2/models/{path:path}": RULES[f"{_KSERVE}ModelMetadata"],
    "POST /v2/models/{path:path}": RULES[f"{_KSERVE}ModelInfer"],
    "POST /v2/repository/index": RULES[f"{_KSERVE}RepositoryIndex"],
    "POST /v2/repository/models/{path:path}": RULES[f"{_KSERVE}RepositoryModelLoad"],
    **{
        f"{verb} /v2/{kind}sharedmemory/{{path:path}}": PAGE
        for verb in ("GET", "POST")
        for kind in ("system", "cuda")
    },
    **{
        f"{verb} /v2/{path}": PAGE
        for verb in ("GET", "POST")
        for path in ("trace/setting", "logging", "models/{path:path}/trace/setting")
    },
}
DECIDED = {
    **{
        f"{route.verb} {route.path}": RULES[
            f"/{method_of(route).containing_service.full_name}/{method_of(route).name}"
        ]
        for route in ROUTES
    },
    **OTHERS,
}
MODEL = {"prepare": [{"model": "a"}]}
SENT: dict[str, dict[str, Any]] = {
    "POST /v1/detect": {"params": {"model": "a"}, "content": b"jpeg"},
    "POST /v1/models": {"json": {"name": "a"}},
    "POST /v1/plan": {"json": {"model": "a"}},
    "POST /v1/changeovers": {"json": MODEL},
    "PUT /v1/schedules/{name}": {"json": {"cron": "0 6 * * *", "change": MODEL}},
    "PUT /v1/models/{model:path}": {"content": b"weights", "params": {"wait": "false"}},
    "PUT /v1/artifacts/{sha256}": {"content": b"weights"},
    "POST /v1/vision/detection": {"files": PICTURE},
    "POST /v1/vision/custom/{model:path}": {"files": PICTURE},
    "POST /v2/models/{path:path}": {"json": {"inputs": []}},
}
PATHS = {
    "POST /v2/models/{path:path}": "/v2/models/a/infer",
    "POST /v2/repository/models/{path:path}": "/v2/repository/models/a/load",
    "GET /v1/artifacts/{sha256}": f"/v1/artifacts/{'0' * 64}",
    "PUT /v1/artifacts/{sha256}": f"/v1/artifacts/{'0' * 64}",
}


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@pytest.fixture(scope="module")
def guarded(
    loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    rig = Guarded(folder, OidcIssuer(folder / "issuer"))
    loop.run_until_complete(rig.__aenter__())
    yield rig
    loop.run_until_complete(rig.__aexit__())


def routes_of(routes: Any) -> Iterator[str]:
    for route in routes:
        inside = getattr(route, "original_router", None)
        if inside is not None:
            yield from routes_of(inside.routes)
        else:
            yield from (f"{verb} {route.path}" for verb in route.methods - {"HEAD"})


def test_every_route_has_a_decision(guarded: Guarded) -> None:
    assert set(routes_of(guarded.plane._http.application.routes)) == set(DECIDED)


def expected(rule: Rule | None, kind: str) -> int | None:
    """The status of a call about model a; None: it is let in, whatever is answered then."""
    if rule is None:
        return None
    if kind == "nobody" or kind in REFUSED:
        return 401
    if kind == NO_ROLE:
        return 403
    role = role_of(kind)
    if not role.allows(Role.DETECT) or not role.allows(rule.role):
        return 403
    if kind in LIMITED and rule.about is About.FLEET:
        return 403
    return 404 if kind in LIMITED_TO_B and rule.about is About.MODEL else None


def asked(route: str) -> tuple[str, str, dict[str, Any]]:
    verb, _, template = route.partition(" ")
    path = PATHS.get(route, template)
    while "{" in path:
        before, _, rest = path.partition("{")
        name, _, after = rest.partition("}")
        path = f"{before}{'cpu' if name == 'device_kind' else 'a'}{after}"
    return verb, path, {"json": {}, **SENT.get(route, {})} if verb != "GET" else {}


@pytest.mark.matrix(sample=24)
@pytest.mark.parametrize("route", sorted(DECIDED.keys() - {f"GET {ENDLESS}"}))
def test_the_matrix(guarded: Guarded, loop: asyncio.AbstractEventLoop, route: str) -> None:
    rule = DECIDED[route]
    verb, path, sent = asked(route)
    if "content" in sent or "files" in sent:
        sent.pop("json", None)

    async def statuses() -> dict[str, int | None]:
        seen = {}
        async with httpx.AsyncClient(base_url=f"http://{guarded.addresses.http}") as http:
            for kind in ("nobody", *guarded.texts):
                headers = dict(bearer(guarded.secret(kind)))
                answer = await http.request(verb, path, headers=headers, timeout=20, **sent)
                hides = rule is not None and rule.about is About.MODEL and kind in LIMITED_TO_B
                seen[kind] = _seen(answer, hides)
        return seen

    right = {kind: expected(rule, kind) for kind in ("nobody", *guarded.texts)}
    assert loop.run_until_complete(statuses()) == right


def _seen(answer: httpx.Response, hides: bool) -> int | None:
    """The status if it is a refusal of the caller; a model that is not there is none."""
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "CREDENTIALS_" in answer.text
    elif answer.status_code == 403:
        assert "_NEEDED" in answer.text
    refusals = (401, 403, 404) if hides else (401, 403)
    return answer.status_code if answer.status_code in refusals else None


# --- what a caller sees, and what does not help it --------------------------------------------


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with Guarded(tmp_path) as rig:
        async with AsyncClient(rig.addresses.grpc, rig.secret("admin")) as admin:
            for name in ("alpha", "beta"):
                path = tmp_path / f"{name}.pt"
                path.write_bytes(name.encode())
                await admin.register(name, path, wait=False)
        yield rig


@pytest.fixture
async def http(rig: Guarded) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}", timeout=20) as client:
        yield client


def shown(rig: Guarded, kind: str) -> dict[str, str]:
    return dict(bearer(rig.secret(kind)))


async def test_a_hidden_model_looks_as_if_it_did_not_exist(
    rig: Guarded, http: httpx.AsyncClient
) -> None:
    """Those that the pattern b* of another key hides, and those that are not there."""
    headers = shown(rig, "granted")
    for verb, path in (
        ("GET", "/v1/models/MODEL"),
        ("GET", "/v1/models/MODEL/ready"),
        ("GET", "/v1/models/MODEL:stable/ready"),
        ("GET", "/v1/models/MODEL+onnx-fp32-cpu@1/ready"),
        ("GET", "/v2/models/MODEL"),
        ("GET", "/v2/models/MODEL/versions/1/config"),
        ("GET", "/v2/models/MODEL/stats"),
        ("GET", "/v2/models/MODEL/ready"),
        ("POST", "/v2/models/MODEL/infer"),
        ("POST", "/v2/models/MODEL%401/infer"),
        ("POST", "/v1/vision/custom/MODEL"),
        ("POST", "/v1/detect?model=MODEL"),
    ):
        told = []
        for model in ("beta", "bbbb"):
            sent: dict[str, Any] = {"content": b"jpeg"} if verb == "POST" else {}
            if "vision" in path:
                sent = {"files": PICTURE}
            if "infer" in path:
                sent = {"json": {"inputs": []}}
            headers["x-request-id"] = "one"
            answer = await http.request(verb, path.replace("MODEL", model), headers=headers, **sent)
            told.append((answer.status_code, answer.text.replace(model, "MODEL")))
        assert told[0] == told[1], path
        assert told[0][0] in (404, 503), path


async def test_lists_have_what_is_granted(rig: Guarded, http: httpx.AsyncClient) -> None:
    await rig.import_all(2)
    headers = shown(rig, "granted")
    asked_for = [
        http.get("/v1/models", headers=headers),
        http.get("/v1/vision/list", headers=headers),
        http.post("/v2/repository/index", headers=headers),
        http.get("/v2/models/stats", headers=headers),
        http.get("/v1/events", headers=headers),
    ]
    for answer in await asyncio.gather(*asked_for):
        assert answer.status_code == 200, answer.url
        assert "beta" not in answer.text, answer.url
    listed = {
        kind: (await http.get("/v1/vision/list", headers=shown(rig, kind))).json()["models"]
        for kind in ("granted", "detect")
    }
    assert listed == {"granted": ["alpha"], "detect": ["alpha", "beta"]}


async def test_health_of_a_model_is_told_to_who_may_see_it(rig: Guarded) -> None:
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)

        async def status(service: str, kind: str) -> str:
            request = health_pb2.HealthCheckRequest(service=service)
            first = await stub.Watch(request, timeout=5, metadata=bearer(rig.secret(kind))).read()
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(first.status))

        for kind in ("nobody", "granted", "worker"):
            assert await status("", kind) == "SERVING"
            assert await status("yolopool.v1.ModelService", kind) == "SERVING"
            assert await status("model/beta", kind) == "SERVICE_UNKNOWN"
        assert await status("model/alpha", "nobody") == "SERVICE_UNKNOWN"
        assert await status("model/alpha", "granted") == "NOT_SERVING"
        with pytest.raises(grpc.RpcError):
            await stub.Check(health_pb2.HealthCheckRequest(service="model/alpha"), timeout=5)


async def test_a_camera_sends_its_key_in_the_form_and_not_in_the_url(
    rig: Guarded, http: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = rig.secret("granted")
    path = "/v1/vision/detection"
    right = await http.post("/v1/vision/custom/alpha", files=PICTURE, data={"api_key": secret})
    assert (right.status_code, right.json()["reason"]) == (409, "MODEL_NOT_READY")
    nothing = await http.post(path, files=PICTURE, data={"api_key": secret})
    assert (nothing.status_code, nothing.json()["reason"]) == (404, "MODEL_NOT_FOUND")
    for key in ("", "yp_0", "yp_\u1d7d_\x00", "k" * 100_000):
        wrong = await http.post(path, files=PICTURE, data={"api_key": key})
        assert wrong.status_code == 401
        assert wrong.json()["success"] is False
    for verb, asked_for in (("POST", path), ("GET", "/v1/models"), ("GET", "/v1/vision/list")):
        answer = await http.request(verb, f"{asked_for}?api_key={secret}")
        assert answer.status_code == 401
    assert secret not in "".join(capfd.readouterr())


FORGED = '{"name":"x","role":"admin","grants":["*"],"tenant":""}'


async def test_headers_of_the_pool_itself_are_nobodys_to_send(
    rig: Guarded, http: httpx.AsyncClient
) -> None:
    forged = {"yolopool-caller": FORGED, "yolopool-forwarded": "x", "principal": "admin"}
    for kind, status in (("nobody", 401), ("detect", 403), ("worker", 403)):
        answer = await http.get("/v1/keys", headers={**shown(rig, kind), **forged})
        assert answer.status_code == status
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        for kind in ("detect", "worker", "granted"):
            metadata = (*bearer(rig.secret(kind)), *list(forged.items())[:2])
            call: Any = channel.unary_unary("/yolopool.v1.KeyService/ListKeys")
            with pytest.raises(grpc.RpcError) as raised:
                await call(b"", timeout=5, metadata=metadata)
            assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_what_is_no_key_is_refused(rig: Guarded, http: httpx.AsyncClient) -> None:
    admin = f"Bearer {rig.secret('admin')}"
    assert (await http.get("/v1/keys", headers={"authorization": admin})).status_code == 200
    for value in ("", "Bearer", "Basic eDp5", f"{admin} x", f"{admin},{admin}",
                  admin.upper(), "Bearer \xff", f"Bearer {'k' * 20_000}"):  # fmt: skip
        sent = [(b"authorization", value.encode("latin-1"))]
        assert (await http.get("/v1/keys", headers=sent)).status_code == 401, value
    twice = [("authorization", f"Bearer {rig.secret('detect')}"), ("authorization", admin)]
    for headers in (twice, twice[::-1]):
        assert (await http.get("/v1/keys", headers=headers)).status_code == 401


async def test_a_body_is_not_read_from_who_has_no_key(rig: Guarded) -> None:
    host, port = rig.addresses.http.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = "PUT /v1/artifacts/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
    writer.write(head.format("0" * 64).encode())
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 401 ")
    writer.close()


async def test_pages_are_opened_by_settings_and_browsers_may_ask_first(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "open_metrics": True,
        "open_docs": True,
        "http_cors_origins": ("https://a.example",),
    }
    async with Guarded(tmp_path, **settings) as rig, httpx.AsyncClient() as http:
        http.base_url = httpx.URL(f"http://{rig.addresses.http}")
        for path in ("/metrics", "/docs", "/docs/swagger-ui.css", "/openapi.json"):
            assert (await http.get(path)).status_code == 200
        document = (await http.get("/openapi.json")).json()
        assert document["security"] == [{"key": []}]
        assert (await http.get("/")).status_code == 401
        origin = {"origin": "https://a.example", "access-control-request-method": "GET"}
        assert (await http.options("/v1/models", headers=origin)).status_code == 200
        refused = await http.get("/v1/models", headers=origin)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://a.example"


async def test_keys_are_made_and_revoked_by_http(rig: Guarded, http: httpx.AsyncClient) -> None:
    headers = shown(rig, "admin")
    body = {"role": "ROLE_DETECT", "models": ["a*"], "label": "camera 7"}
    made = await http.post("/v1/keys", headers=headers, json=body)
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    id_, own = made.json()["key"]["id"], {"authorization": f"Bearer {made.json()['secret']}"}
    assert (await http.get("/v1/models", headers=own)).json()["models"][0]["name"] == "alpha"
    assert (await http.post("/v1/keys", headers=own, json=body)).status_code == 403
    turned = await http.post(f"/v1/keys/{id_}/rotate", headers=headers)
    assert (await http.get("/v1/models", headers=own)).status_code == 401
    own = {"authorization": f"Bearer {turned.json()['secret']}"}
    assert (await http.get("/v1/models", headers=own)).status_code == 200
    assert (await http.delete(f"/v1/keys/{id_}", headers=headers)).status_code == 200
    assert (await http.get("/v1/models", headers=own)).status_code == 401
    listed = (await http.get("/v1/keys", headers=headers)).text
    assert "secret" not in listed
    assert id_ in listed


# --- streams ----------------------------------------------------------------------------------


async def test_a_stream_of_frames_is_asked_for_its_model_before_it_is_read_on(
    rig: Guarded,
) -> None:
    read = []

    async def messages(model: str) -> AsyncIterator[Any]:
        yield detection_pb2.DetectStreamRequest(opening=detection_pb2.StreamOpening(model=model))
        for number in range(1000):
            read.append(number)
            yield detection_pb2.DetectStreamRequest(
                frame=detection_pb2.StreamFrame(frame_id=number, encoded=b"jpeg")
            )

    method = "/yolopool.v1.DetectionService/DetectStream"
    for model in ("beta", "bbbb"):
        caller = Caller("test", 10, bearer(rig.secret("granted")))
        with pytest.raises(ModelNotFound, match="no such model"):
            await anext(rig.plane.dispatch.stream(method, messages(model), caller))
    assert not read


async def test_a_stream_ends_at_the_first_answer_after_its_key_was_revoked(rig: Guarded) -> None:
    request = detection_pb2.DetectStreamRequest
    sent: asyncio.Queue[Any] = asyncio.Queue()

    async def messages() -> AsyncIterator[Any]:
        while True:
            yield await sent.get()

    caller = Caller("test", 20, bearer(rig.secret("granted")))
    answers = rig.plane.dispatch.stream(
        "/yolopool.v1.DetectionService/DetectStream", messages(), caller
    )
    frame = request(frame=detection_pb2.StreamFrame(frame_id=1, encoded=b"jpeg"))
    sent.put_nowait(request(opening=detection_pb2.StreamOpening(model="alpha")))
    sent.put_nowait(frame)
    assert (await anext(answers)).error.reason == "MODEL_NOT_READY"
    async with AsyncClient(rig.addresses.grpc, rig.secret("admin")) as admin:
        await admin.revoke_key(rig.kinds["granted"][0].id)
    sent.put_nowait(frame)
    with pytest.raises(CredentialsInvalid):
        await anext(answers)


async def test_each_message_of_a_stream_of_kserve_is_asked(rig: Guarded) -> None:
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        stub: Any = kserve_grpc.GRPCInferenceServiceStub(channel)
        names = ("alpha", "beta", "bbbb")
        requests = (kserve.ModelInferRequest(model_name=name, id=name) for name in names)
        call = stub.ModelStreamInfer(requests, timeout=10, metadata=bearer(rig.secret("granted")))
        told = {answer.infer_response.id: answer.error_message async for answer in call}
    assert "MODEL_NOT_FOUND" not in told["alpha"]
    assert "MODEL_NOT_FOUND" in told["beta"]
    assert told["beta"].replace("beta", "X") == told["bbbb"].replace("bbbb", "X")


# --- ways round -------------------------------------------------------------------------------


async def test_anothers_request_is_not_explained_nor_its_schedule_overwritten(
    rig: Guarded,
) -> None:
    address = rig.addresses.grpc
    async with AsyncClient(address, rig.secret("operate")) as operator:
        with pytest.raises(FailedPrecondition):
            await operator.detect(b"jpeg", "beta", request_id="mine")
    explain, schedule = f"{_V1}ExplainService/ExplainRequest", f"{_V1}ScheduleService/SetSchedule"
    mine = explain_pb2.ExplainRequestRequest(request_id="mine")
    assert (await rig.call(explain, mine, "operate")).requests
    for kind in ("detect", "granted"):
        with pytest.raises(RequestNotFound):
            await rig.call(explain, mine, kind)
    at_six = schedule_pb2.SetScheduleRequest()
    at_six.schedule.name, at_six.schedule.cron = "day", "0 6 * * *"
    at_six.schedule.change.prepare.add(model="beta")
    await rig.call(schedule, at_six, "operate")
    at_six.schedule.change.prepare[0].model = "alpha"
    with pytest.raises(GrantNeeded):
        await rig.call(schedule, at_six, "granted")


async def test_anothers_request_id_tells_nothing_of_its_model(rig: Guarded) -> None:
    method = f"{_V1}ModelService/RegisterModel"
    artifact = hashlib.sha256(b"alpha").hexdigest()
    for kind, name in (("operate", "beta-2"), ("granted", "alpha-2")):
        request = model_pb2.RegisterModelRequest(name=name, artifact=artifact, request_id="one")
        made = await rig.call(method, request, kind)
        assert made.version.version.model == name
        again = await rig.call(method, request, kind)
        assert again.version.version == made.version.version


async def test_events_of_models_that_are_gone_are_still_hidden(
    rig: Guarded, http: httpx.AsyncClient
) -> None:
    gone = await http.delete("/v1/models/beta", headers=shown(rig, "admin"))
    assert gone.status_code == 200
    told = (await http.get("/v1/events", headers=shown(rig, "admin"))).json()["events"]
    assert "beta" in {event.get("version", {}).get("model") for event in told}
    told = (await http.get("/v1/events", headers=shown(rig, "granted"))).json()["events"]
    assert {event.get("version", {}).get("model") for event in told} <= {None, "alpha"}


async def test_a_secret_where_an_id_belongs_is_not_logged(
    rig: Guarded, http: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = rig.secret("detect")
    for kind in ("nobody", "admin"):
        answer = await http.delete(f"/v1/keys/{secret}", headers=shown(rig, kind))
        assert answer.status_code in (401, 404)
        assert secret[20:] not in answer.text
    await http.get("/v1/%0Aaudit%20outcome=OK" + "x" * 5000)
    told = "".join(capfd.readouterr())
    assert "KEY_NOT_FOUND" in told
    assert "peer=ipv4:127.0.0.1:" in told
    assert secret[20:] not in told
    assert "\naudit" not in told
    assert "x" * 500 not in told


async def test_the_last_key_of_an_admin_is_not_revoked(rig: Guarded) -> None:
    async with AsyncClient(rig.addresses.grpc, rig.secret("admin")) as admin:
        first = rig.kinds["admin"][0].id
        for key in await admin.list_keys():
            if key.role == "admin" and key.id != first:
                await admin.revoke_key(key.id)
        with pytest.raises(FailedPrecondition, match="last"):
            await admin.revoke_key(first)
        await admin.create_key("admin", models=["a*"])
        with pytest.raises(FailedPrecondition, match="last"):
            await admin.revoke_key(first)
        await admin.create_key("admin")
        assert (await admin.revoke_key(first)).revoked_unix_s


async def test_reflection_needs_a_key(rig: Guarded) -> None:
    for kind, code in (("nobody", "UNAUTHENTICATED"), ("worker", "PERMISSION_DENIED")):
        with pytest.raises(grpc.RpcError) as raised:
            await _services(rig, kind)
        assert raised.value.code().name == code
    assert "yolopool.v1.ModelService" in await _services(rig, "detect")


async def _services(rig: Guarded, kind: str) -> set[str]:
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(
            iter([request]), timeout=5, metadata=bearer(rig.secret(kind))
        )
        answer = await call.read()
        return {one.name for one in answer.list_services_response.service}
