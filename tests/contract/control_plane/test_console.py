"""The console by HTTP: its pages, signing in and out, what fills it, and who it is not for."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.console import snapshots
from control_plane.console.assets import PAGES
from control_plane.console.console import POLICY
from control_plane.store.memory_registry import MemoryRegistry
from tests.contract.control_plane_rig import Rig
from tests.contract.guarded_rig import Guarded
from tests.waiting import becomes


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with Guarded(tmp_path) as rig:
        yield rig


@pytest.fixture
async def browser(rig: Guarded) -> AsyncIterator[httpx.AsyncClient]:
    """It keeps cookies, and says which page asks, as browsers do."""
    base = f"http://{rig.addresses.http}"
    headers = {"sec-fetch-site": "same-origin"}
    async with httpx.AsyncClient(base_url=base, timeout=20, headers=headers) as client:
        yield client


async def signed_in(browser: httpx.AsyncClient, key: str) -> httpx.Response:
    return await browser.post("/console/session", json={"key": key})


async def parts(lines: AsyncIterator[str], names: set[str]) -> dict[str, Any]:
    """The first of each part of a stream that was opened."""
    found: dict[str, Any] = {}
    name = ""
    async with asyncio.timeout(10):
        async for line in lines:
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                found[name] = json.loads(value)
                if names <= found.keys():
                    break
    return found


async def test_pages_are_for_everyone_and_keep_the_policy(browser: httpx.AsyncClient) -> None:
    paths = ["/console/", *(f"/console/{page.name}" for page in PAGES)]
    for path in (*paths, "/console/static/dom.js", "/console/static/vendor/uplot/LICENSE"):
        answer = await browser.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = await browser.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert (await browser.get("/console")).headers["location"] == "/console/"
    for path in ("/console/none", "/console/static/../console.py", "/console/static/%2e%2e/x"):
        assert (await browser.get(path)).status_code == 404, path


async def test_a_key_signs_in_and_its_revocation_signs_out(
    rig: Guarded, browser: httpx.AsyncClient
) -> None:
    nobody = (await browser.get("/console/session")).json()
    assert nobody["signed_in"] is False
    assert (await browser.get("/v1/models")).status_code == 401
    for wrong in (rig.secret("wrong"), rig.secret("revoked"), rig.secret("expired")):
        refused = await signed_in(browser, wrong)
        assert refused.status_code == 401
        assert "set-cookie" not in refused.headers
    answer = await signed_in(browser, f" {rig.secret('operate')}\n")
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert rig.secret("operate") not in cookie
    assert "HttpOnly" in cookie
    told = answer.json()
    assert told["role"] == "operate"
    assert "role admin" in told["refused"]["DrainWorker"]
    assert "LoadModel" not in told["refused"]
    assert (await browser.get("/console/session")).json() == told
    assert (await browser.get("/v1/models")).status_code == 200
    # Not where a page of another origin asks, nor where no page of ours asks.
    for headers in ({"sec-fetch-site": "same-site"}, {"sec-fetch-site": "cross-site"}):
        assert (await browser.get("/v1/models", headers=headers)).status_code == 401
        order = await browser.post("/v1/models/a/unload", headers=headers)
        assert order.status_code in (401, 403)
    assert (await browser.get("/v2/models/a")).status_code == 401
    # A key that is said goes before the session.
    other = {"authorization": f"Bearer {rig.secret('wrong')}"}
    assert (await browser.get("/v1/models", headers=other)).status_code == 401
    async with browser.stream("GET", "/console/stream") as stream:
        lines = stream.aiter_lines()
        await parts(lines, {"fleet"})
        (key,) = (one for one, secret in rig.kinds.values() if secret.text == rig.secret("operate"))
        admin = {"authorization": f"Bearer {rig.secret('admin')}"}
        ended = await browser.delete(f"/v1/keys/{key.id}", headers=admin)
        assert ended.status_code == 200, ended.text
        async with asyncio.timeout(10):
            rest = "\n".join([line async for line in lines])
    assert "event: problem" in rest
    assert "CREDENTIALS_INVALID" in rest
    assert (await browser.get("/v1/models")).status_code == 401
    assert (await browser.get("/console/session")).json()["signed_in"] is False


async def test_signing_out_takes_the_session_away(rig: Guarded, browser: httpx.AsyncClient) -> None:
    await signed_in(browser, rig.secret("admin"))
    assert (await browser.get("/console/session")).json()["refused"] == {}
    assert (await browser.delete("/console/session")).status_code == 204
    assert (await browser.get("/console/session")).json()["signed_in"] is False
    for body in ("", "{}", '{"key": 1}', '{"key": ""}', '{"key": "a b"}', "[" * 9, '{"key": "é"}'):
        json_ = {"content-type": "application/json"}
        answer = await browser.post("/console/session", content=body, headers=json_)
        assert answer.status_code in (400, 401), body
    long = await signed_in(browser, "k" * 3000)
    assert (long.status_code, "fewer claims" in long.text) == (400, True)
    form = await browser.post("/console/session", data={"key": rig.secret("admin")})
    assert form.status_code == 400
    foreign = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    body_ = {"key": rig.secret("admin")}
    planted = await browser.post("/console/session", json=body_, headers=foreign)
    assert planted.status_code == 403


async def test_who_may_not_see_the_fleet_is_told_why(
    rig: Guarded, browser: httpx.AsyncClient
) -> None:
    for kind, why in (("detect", "role operate"), ("granted", "granted a*")):
        told = (await signed_in(browser, rig.secret(kind))).json()
        assert why in told["refused"]["ListWorkers"]
        for path in ("/console/stream", "/console/findings"):
            refused = await browser.get(path)
            assert (refused.status_code, why in refused.text) == (403, True), (kind, path)
        # What it may see fills the page of models.
        assert (await browser.get("/v1/models")).status_code == 200
    await browser.delete("/console/session")
    assert (await browser.get("/console/stream")).status_code == 401


async def test_all_pages_are_fed_by_one_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as no machine is slow.
    monkeypatch.setattr(snapshots, "PERIOD_S", 600.0)
    log = tmp_path / "requests.jsonl"
    async with Rig(tmp_path, MemoryRegistry(), request_log=str(log)) as rig:
        await rig.worker("w", models=3)
        await becomes(lambda: rig.plane.view.workers)
        asked: list[str] = []
        unary = rig.plane.dispatch.unary

        async def counted(method: str, *more: Any) -> Any:
            asked.append(method.rpartition("/")[2])
            return await unary(method, *more)

        monkeypatch.setattr(rig.plane.dispatch, "unary", counted)
        async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}", timeout=20) as http:
            told = (await http.get("/console/session")).json()
            assert (told["asks"], told["refused"]) == (False, {})
            names = {"fleet", "workers", "statistics"}

            async def page() -> dict[str, Any]:
                async with http.stream("GET", "/console/stream") as stream:
                    assert stream.headers["content-type"].startswith("text/event-stream")
                    return await parts(stream.aiter_lines(), names)

            many = await asyncio.gather(*(page() for _ in range(8)))
            assert all(one == many[0] for one in many)
            assert asked == ["GetFleet", "ListWorkers", "GetStatistics"]
            (seen,) = many[0]["workers"]["workers"]
            assert (seen["id"], seen["ledger"]["budget_bytes"]) == ("w", 300)
            findings = (await http.get("/console/findings")).json()
            assert findings.get("why") or findings["requests"] == 0
        async with Rig(tmp_path / "other") as other, httpx.AsyncClient() as http:
            answer = await http.get(f"http://{other.addresses.http}/console/findings")
            assert "--request-log" in answer.json()["why"]
