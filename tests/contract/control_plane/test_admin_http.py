"""Administration by HTTP against a real control plane: each route, and what it refuses."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.gateway.admin.routes import ROUTES
from tests.contract.control_plane_rig import Rig
from tests.waiting import becomes
from yolopool.errors import LoadFailed


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as one:
        yield one


@pytest.fixture
async def http(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}", timeout=20) as client:
        yield client


def fits(answer: httpx.Response, status: int) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def problem(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["reason"] == reason, found
    assert found["detail"]
    return found


async def test_the_life_of_a_model(rig: Rig, http: httpx.AsyncClient) -> None:
    await rig.worker("w1")
    await rig.upload(b"weights")
    body = {"name": "team/a", "artifact": hashlib.sha256(b"weights").hexdigest()}
    answer = await http.post("/v1/models", json={**body, "settings": {"confidence": 0.5}})
    version = fits(answer, 202)
    assert answer.headers["location"] == "/v1/models/team/a@1"
    assert version["state"] == "VERSION_STATE_UPLOADED"
    problem(await http.post("/v1/models/team/a/load"), 409, "MODEL_NOT_READY")
    await rig.import_next()
    registered, _ = await asyncio.gather(
        http.post("/v1/models?wait=true", json={**body, "settings": {"confidence": 0.6}}),
        rig.import_next(),
    )
    assert fits(registered, 201)["state"] == "VERSION_STATE_READY"
    model = fits(await http.get("/v1/models/team/a"), 200)
    assert [one["version"]["version"] for one in model["versions"]] == [2, 1]
    assert model["default_version"] == 2
    assert fits(await http.get("/v1/models/team/a@1"), 200)["versions"][0]["artifact"]
    listed = fits(await http.get("/v1/models", params={"name_prefix": "team/"}), 200)
    assert [one["name"] for one in listed["models"]] == ["team/a"]
    assert fits(await http.get("/v1/models?name_prefix=x"), 200) == {"models": []}

    loaded = fits(await http.post("/v1/models/team/a@1/load?wait=true", json={"pin": True}), 200)
    assert loaded["pinned"]
    assert [one["worker"] for one in loaded["replicas"]] == ["w1"]
    assert isinstance(loaded["replicas"][0]["replica"]["weights_bytes"], int)
    why = fits(await http.get("/v1/models/team/a@1/explain"), 200)
    assert why["workers"][0]["state"] == "REPLICA_STATE_HOT"
    plan = fits(await http.post("/v1/plan", json={"model": "team/a", "replicas": 2}), 200)
    assert {step["action"] for step in plan["steps"]} == {"ASSIGN", "WAIT"}
    fits(await http.post("/v1/models/team/a@1/unload?wait=true"), 200)
    assert fits(await http.post("/v1/models/team/a@1/unload?force=true"), 202)["replicas"] == []

    deleted = fits(await http.delete("/v1/models/team/a@1"), 200)
    assert deleted == {"deleted": [{"model": "team/a", "version": 1}]}
    problem(await http.get("/v1/models/team/a@1"), 404, "VERSION_NOT_FOUND")
    fits(await http.delete("/v1/models/team/a"), 200)
    problem(await http.delete("/v1/models/team/a"), 404, "MODEL_NOT_FOUND")


async def test_policies_builds_and_variants(rig: Rig, http: httpx.AsyncClient) -> None:
    await rig.worker("w1", kind="cpu", pool="day")
    await rig.ready("a")
    kept = {"mode": "RESIDENCY_MODE_ON_DEMAND", "idle_release_s": 30.5}
    version = fits(await http.put("/v1/models/a/residency", json=kept), 200)
    assert version["residency"] == {**kept, "cpu_fallback": False}
    placed = {
        "pool": "day",
        "labels": {"zone": "b"},
        "max_replicas": 2,
        "priority": "PRIORITY_BULK",
    }
    assert fits(await http.put("/v1/models/a/placement", json=placed), 200)["placement"] == placed
    batching = {"max_batch": 4, "preferred_sizes": [2, 4], "max_delay_ms": 1.5, "p99_goal_ms": 50.0}
    version = fits(await http.put("/v1/models/a/batching/cpu", json=batching), 200)
    assert version["batching"]["cpu"] == {**batching, "queue_capacity": 0, "fixed": False}
    wrong = {"p99_goal_ms": 60_001}
    problem(await http.put("/v1/models/a/batching/cpu", json=wrong), 400, "INVALID_OPTION")
    assert fits(await http.delete("/v1/models/a/batching/cpu"), 200)["batching"] == {}

    build = {"backend": "torch", "precision": "bf16", "device_kind": "cpu"}
    made = await http.post("/v1/models/a/builds?wait=true", json=build)
    assert fits(made, 201)["build_of"] == {"model": "a", "version": 1}
    assert made.headers["location"] == "/v1/models/a+torch-bf16-cpu@1"
    assert fits(await http.get(made.headers["location"]), 200)["name"] == "a+torch-bf16-cpu"
    served = await http.put("/v1/models/a/variant/cpu", json={"variant": "torch/bf16"})
    assert fits(served, 200)["served"]["cpu"]["variant"]["precision"] == "bf16"
    refused = problem(await http.delete("/v1/models/a+torch-bf16-cpu"), 400, "INVALID_OPTION")
    assert "serves a@1" in refused["detail"]
    assert fits(await http.delete("/v1/models/a/variant/cpu"), 200)["served"] == {}
    problem(await http.put("/v1/models/a/variant/tpu", json={}), 400, "INVALID_OPTION")


async def test_aliases(rig: Rig, http: httpx.AsyncClient) -> None:
    await rig.worker("w1")
    for data in (b"one", b"two"):
        await rig.register("team/a", data)
        await rig.import_next()
    made = fits(
        await http.post("/v1/models/team/a@1/promote?wait=true", json={"alias": "live"}), 200
    )
    assert made["targets"] == [{"version": 1, "weight": 1000}]
    shared = {"targets": [{"version": 1, "weight": 900}, {"version": 2, "weight": 100}]}
    put = await http.put("/v1/aliases/team/a:live", json={**shared, "expected_revision": 1})
    assert fits(put, 202)["revision"] == 2
    stale = await http.put("/v1/aliases/team/a:live", json={**shared, "expected_revision": 1})
    assert fits(stale, 202)["revision"] == 2  # a repeat
    other = {"targets": [{"version": 2, "weight": 1000}], "expected_revision": 1}
    problem(await http.put("/v1/aliases/team/a:live", json=other), 409, "ALIAS_CHANGED")
    held = fits(await http.get("/v1/aliases/team/a:live"), 200)
    assert [one["kind"] for one in held["history"]] == ["ALIAS_CHANGE_KIND_SET"] * 2
    listed = fits(await http.get("/v1/aliases"), 200)
    assert [(one["model"], one["name"]) for one in listed["aliases"]] == [("team/a", "live")]
    assert (
        fits(await http.post("/v1/aliases/team/a:live/rollback"), 202)["targets"] == made["targets"]
    )
    back = await http.post("/v1/aliases/team/a:live/rollback", json={"why": "again"})
    problem(back, 409, "NOTHING_TO_ROLL_BACK")
    gone = await http.delete("/v1/aliases/team/a:live?expected_revision=9")
    problem(gone, 409, "ALIAS_CHANGED")
    assert (await http.delete("/v1/aliases/team/a:live")).status_code == 204
    problem(await http.get("/v1/aliases/team/a:live"), 404, "ALIAS_NOT_FOUND")
    problem(await http.get("/v1/aliases/team/a"), 400, "INVALID_MODEL_REFERENCE")


async def test_changeovers_and_schedules(rig: Rig, http: httpx.AsyncClient) -> None:
    worker = await rig.worker("w1", models=1)
    await rig.ready("day", "night")
    await rig.load("day")
    change = {"prepare": [{"model": "night"}], "release": ["day"]}
    done = fits(await http.post("/v1/changeovers", json=change), 200)
    assert [one["version"]["model"] for one in done["prepared"]] == ["night"]
    assert done["released"] == [{"model": "day", "version": 1}]
    worker.refuse["day@1"] = LoadFailed("no such layer")
    back = {"prepare": [{"model": "day"}], "release": ["night"]}
    answer = problem(await http.post("/v1/changeovers", json=back), 409, "CHANGEOVER_FAILED")
    assert answer["details"]["model"] == "day@1"

    schedule = {"cron": "0 7 * * *", "time_zone": "Europe/Berlin", "lead_s": 60, "change": change}
    made = fits(await http.put("/v1/schedules/at-seven", json=schedule), 200)
    assert made["schedule"]["name"] == "at-seven"
    assert made["next_unix_s"] > 0
    listed = fits(await http.get("/v1/schedules"), 200)["schedules"]
    assert [one["schedule"]["cron"] for one in listed] == ["0 7 * * *"]
    there = fits(await http.get("/v1/schedules/at-seven"), 200)["schedule"]
    assert there == made["schedule"]
    # What was answered can be put back, where it is.
    again = await http.put("/v1/schedules/at-seven", json={**there, "lead_s": 30})
    assert fits(again, 200)["schedule"]["lead_s"] == 30
    refused = problem(await http.put("/v1/schedules/else", json=there), 400, "INVALID_OPTION")
    assert "'else' in the path and 'at-seven' in the body" in refused["detail"]
    gone = await http.delete("/v1/schedules/at-seven")
    assert (gone.status_code, gone.content) == (204, b"")
    problem(await http.delete("/v1/schedules/at-seven"), 404, "SCHEDULE_NOT_FOUND")
    problem(await http.get("/v1/schedules/at-seven"), 404, "SCHEDULE_NOT_FOUND")
    problem(await http.put("/v1/schedules/x", json={"cron": "no"}), 400, "INVALID_SCHEDULE")


async def test_the_fleet_its_requests_and_the_store(rig: Rig, http: httpx.AsyncClient) -> None:
    worker = await rig.worker("w1")
    await rig.worker("w2")
    await rig.ready("a")
    fleet = fits(await http.get("/v1/fleet"), 200)
    assert (fleet["models"], fleet["workers_ready"], fleet["registry_available"]) == (1, 2, True)
    workers = fits(await http.get("/v1/workers"), 200)["workers"]
    assert [one["id"] for one in workers] == ["w1", "w2"]
    assert workers[0]["ledger"]["budget_bytes"] == 200
    one = fits(await http.get("/v1/workers/w2"), 200)
    assert (one["id"], one["address"]) == ("w2", workers[1]["address"])
    problem(await http.get("/v1/workers/w9"), 404, "WORKER_NOT_FOUND")
    await rig.detect("a", request_id="cam/7:1")
    told = fits(await http.get("/v1/requests/cam/7:1/explain"), 200)["requests"]
    assert [(one["outcome"], one["hit"]) for one in told] == [("OK", False)]
    problem(await http.get("/v1/requests/none/explain"), 404, "REQUEST_NOT_FOUND")
    drained = await http.post("/v1/workers/w1/drain?wait=true&timeout=10")
    assert fits(drained, 200) == {"not_moved": []}
    assert worker.drained
    fits(await http.post("/v1/workers/w2/drain"), 202)
    problem(await http.post("/v1/workers/w9/drain"), 404, "WORKER_NOT_FOUND")
    await rig.upload(b"used by nobody")
    swept = fits(await http.post("/v1/store/sweep", json={"dry_run": True}), 200)["files"]
    assert [(one["kind"], one["size_bytes"]) for one in swept] == [("artifact", 14)]
    assert not any(one["removed"] for one in fits(await http.post("/v1/store/sweep"), 200)["files"])


async def test_a_benchmark_is_a_line_for_each_point(rig: Rig, http: httpx.AsyncClient) -> None:
    await rig.worker("w1")
    await rig.ready("a")
    sweep = {"sweep": {"batch_sizes": [1, 2]}}
    answer = await http.post("/v1/models/a/bench", json=sweep)
    assert answer.headers["content-type"] == "application/x-ndjson"
    points = [json.loads(line)["point"] for line in answer.text.splitlines()]
    assert [(point["batch"], point["images_per_s"]) for point in points] == [(1, 10.0), (2, 20.0)]
    problem(await http.post("/v1/models/no/bench"), 404, "MODEL_NOT_FOUND")


async def test_an_error_in_a_benchmark_is_its_last_line(rig: Rig, http: httpx.AsyncClient) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    worker.infer_s = 0.3
    sweep = {"sweep": {"batch_sizes": [1, 2, 3, 4, 5, 6]}}
    async with http.stream("POST", "/v1/models/a/bench", json=sweep) as answer:
        lines = answer.aiter_lines()
        assert json.loads(await anext(lines))["point"]["batch"] == 1
        await worker.die()
        last = [json.loads(line) async for line in lines][-1]
    assert last["reason"] == "WORKER_LOST"
    assert last["retryable"]


async def test_a_wait_ends_in_time_and_with_its_caller(rig: Rig, http: httpx.AsyncClient) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a", "b")
    worker.load_s = 60.0
    late = await http.post("/v1/models/a/load?wait=true&timeout=0.3")
    problem(late, 504, "DEADLINE_EXCEEDED")
    # A changeover whose caller leaves before the switch puts the wants back.
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/v1/changeovers", json={"prepare": [{"model": "b"}]}, timeout=0.5)
    await becomes(lambda: not any(key.model == "b" for key in rig.plane.view.desired.wants))


async def test_a_follower_passes_calls_on_to_the_leader(rig: Rig, tmp_path: Path) -> None:
    async with Rig(tmp_path, rig.registry) as follower:
        await becomes(lambda: follower.plane.view.leader_address == rig.addresses.grpc)
        await rig.worker("w1", also=[follower.addresses.grpc])
        await becomes(lambda: follower.plane.view.workers)
        address = f"http://{follower.addresses.http}"
        async with httpx.AsyncClient(base_url=address, timeout=20) as http:
            put, _ = await asyncio.gather(
                http.put("/v1/models/a", content=b"weights"), rig.import_next()
            )
            assert fits(put, 201)["version"] == {"model": "a", "version": 1}
            pinned = await http.post("/v1/models/a/load?wait=true", json={"pin": True})
            assert fits(pinned, 200)["replicas"][0]["worker"] == "w1"
            # The leader wrote it, and both show it.
            assert rig.plane.view.desired.wants.keys() == follower.plane.view.desired.wants.keys()
            problem(await http.post("/v1/models/no/load"), 404, "MODEL_NOT_FOUND")
            assert fits(await http.get("/v1/models/a/explain"), 200)["wants"]
            fits(await http.delete("/v1/models/a?force=true"), 200)
            assert not rig.plane.view.catalogue.models


WRONG_NAMES = [
    "A", "..", "a..%2F..", "%2E%2E%2Fetc", "a%00b", "a%0Ab", "%FF", "%C3%A4", "a%20b", "a@0", "a@x",
    "a@-1", "a@9999999999", "a/b/c", "a//b", "/a", "a" * 5000, "a%252Fb", "@", ":", "a:", "+", "%",
]  # fmt: skip
WRONG_BODIES = [
    b"", b"{", b"[]", b"null", b"5", b'"a"', b'{"no_such_field": 1}', b'{"a": NaN}',
    b'{"wait": 1e400}', b'{"model": 5}', b"\xff\xfe", b"[" * 5000, b"9" * 5000, b'{"a":"\\ud800"}',
]  # fmt: skip
WRONG_QUERIES = [
    "wait=maybe", "timeout=0", "timeout=-1", "timeout=nan", "timeout=inf", "timeout=x",
    "timeout=1e9", "no_such=1", "Wait=true",
]  # fmt: skip


def refuses(answer: httpx.Response, what: str, *also: int) -> None:
    """Whatever is sent, the answer is a problem that names what is wrong, and no fault."""
    assert answer.status_code in (400, 404, 405, *also), (what, answer.status_code, answer.text)
    found = answer.json()
    assert found["detail"], what
    assert found["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert len(answer.text) < 4000, what


async def test_another_method_is_told_which_there_are(http: httpx.AsyncClient) -> None:
    for verb, path, allowed in (
        ("PATCH", "/v1/models/team/a", "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", "/v1/models", "GET, HEAD, POST"),
        ("POST", "/v1/artifacts/x", "GET, HEAD, PUT"),
        ("GET", "/v1/vision/detection", "POST"),
        ("POST", "/metrics", "GET, HEAD"),
    ):
        answer = await http.request(verb, path)
        problem(answer, 405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == allowed, path


async def test_wrong_names_are_refused_on_every_route(rig: Rig, http: httpx.AsyncClient) -> None:
    named = [route for route in ROUTES if "{" in route.path]
    for index, route in enumerate(named):
        for name in WRONG_NAMES[index % 4 :: 4]:  # in turn: all of them on all would take minutes
            path = route.path.replace("{model:path}", name).replace("{device_kind}", "cpu")
            for field in ("{worker}", "{name}", "{request_id:path}"):
                path = path.replace(field, name)
            url = httpx.URL(f"http://{rig.addresses.http}").copy_with(raw_path=path.encode())
            answer = await http.request(route.verb, url, json={} if route.body != "-" else None)
            refuses(answer, f"{route.verb} {path[:80]}")


async def test_wrong_bodies_are_refused_on_every_route(rig: Rig, http: httpx.AsyncClient) -> None:
    await rig.ready("a")
    headers = {"content-type": "application/json"}
    for index, route in enumerate(route for route in ROUTES if route.body != "-"):
        path = route.path.replace("{model:path}", "a").replace("{device_kind}", "cpu")
        path = path.replace("{name}", "s")
        for body in WRONG_BODIES[index % 2 :: 2]:
            if not body and route.body_may_lack:
                continue
            answer = await http.request(route.verb, path, content=body, headers=headers)
            refuses(answer, f"{route.verb} {path} {body[:40]!r}")
        # A form, as curl -d sends without a header, is no JSON.
        answer = await http.request(route.verb, path, data={"replicas": "1"})
        refuses(answer, f"{route.verb} {path} form")
        assert "Content-Type: application/json" in answer.json()["detail"]


async def test_a_body_that_is_wrong_everywhere_has_a_short_answer(
    http: httpx.AsyncClient,
) -> None:
    wrong = {"settings": {"image_sizes": ["x"] * 50_000}}
    answer = problem(await http.post("/v1/models", json=wrong), 400, "INVALID_ARGUMENT")
    assert "body.settings.image_sizes.0" in answer["detail"]
    assert answer["detail"].endswith("and 49995 more")
    answer = problem(
        await http.post("/v1/models", json={"x" * 500_000: 1}), 400, "INVALID_ARGUMENT"
    )
    assert len(answer["detail"]) < 1000


async def test_wrong_queries_are_refused_on_every_route(rig: Rig, http: httpx.AsyncClient) -> None:
    for index, route in enumerate(ROUTES):
        path = route.path.replace("{model:path}", "a").replace("{device_kind}", "cpu")
        path = path.replace("{worker}", "w").replace("{name}", "s")
        path = path.replace("{request_id:path}", "r")
        for query in WRONG_QUERIES[index % 3 :: 3]:
            answer = await http.request(
                route.verb, f"{path}?{query}", json={} if route.body != "-" else None
            )
            refuses(answer, f"{route.verb} {path}?{query}")
            assert query.partition("=")[0] in answer.json()["detail"]
