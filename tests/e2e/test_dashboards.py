"""A real Prometheus scrapes a running pool, and each query of each panel of the dashboards has an
answer; promtool finds nothing wrong with what is scraped.

Figures that only a GPU has are told by a worker of the tests that joins the pool.
"""

import asyncio
import json
import math
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.contract.control_plane_rig import ScriptedWorker
from tests.models import ROOT
from yolopool.client.client import Client
from yolopool.errors import YolopoolError
from yolopool.local.pool import LocalPool, PoolOptions
from yolopool.v1 import fleet_pb2, types_pb2

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus: apt-get install prometheus"),
]
DASHBOARDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
}
MODELS = ("line-a", "line-b", "line-c", "line-d")
# Room for one of them on the device: they leave it for each other.
BUDGET = "388MB"
# One that is asked now and then, and released meanwhile.
SELDOM = "seldom"
GPU = "gpu"
STAND = types_pb2.DeviceStand(
    used_bytes=10 * 2**30, free_bytes=70 * 2**30, utilisation=0.7, temperature_c=64.0,
    clock_ratio=0.9, power_w=310.0, power_limit_w=700.0, energy_j=5e6, throttled=["power"],
    host_load=0.4, xid_errors=1, last_xid=79, memory_total_bytes=80 * 2**30,
)  # fmt: skip
RANGE = "10s"


@contextmanager
def asked(address: str, *models: str, every_s: float = 0.0) -> Iterator[None]:
    """Models that are asked all the time, one after the other."""
    ended = threading.Event()
    image = ROOT / "examples" / "shapes" / "images" / "00003.png"

    def ask() -> None:
        with Client(address) as client:
            while not ended.is_set():
                for model in models:
                    try:
                        client.detect(image, model=model, timeout_s=10)
                    except YolopoolError:  # a panel shows those
                        time.sleep(0.05)
                    ended.wait(every_s)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Prometheus:
    """As deploy/prometheus has it, but for the address and for how often it looks."""

    def __init__(self, folder: Path, http: str) -> None:
        given = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
        given["global"]["scrape_interval"] = "1s"
        given["scrape_configs"][0]["static_configs"] = [{"targets": [http]}]
        shutil.copy(ROOT / "deploy" / "prometheus" / "alerts.yml", folder)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(given))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [
            str(PROMETHEUS), f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data", f"--web.listen-address={self._address}",
            "--enable-feature=exemplar-storage",
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def ask(self, path: str, **arguments: str) -> Any:
        """The data of an answer; None: it does not answer yet."""
        url = f"http://{self._address}/api/v1/{path}?{urlencode(arguments)}"
        try:
            with urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except URLError as error:
            if isinstance(error, HTTPError) or self._process.poll() is not None:
                raise
            return None

    def values(self, query: str) -> list[float]:
        found = self.ask("query", query=query)
        values = [float(one["value"][1]) for one in found["result"]] if found else []
        return [value for value in values if not math.isnan(value)]

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPool]:
    folder = tmp_path_factory.mktemp("pool")
    options = PoolOptions(folder, port=0, http_port=0, devices="sim:1", memory_budget=BUDGET)
    with LocalPool(options, lambda _: None) as pool, Client(pool.address) as client:
        for model in (*MODELS, SELDOM):
            client.register(model, ROOT / "examples" / "shapes" / "models" / "shapes.pt")
        client.set_residency(SELDOM, "on-demand", idle_release_s=1.0)
        yield pool


def queries(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and expression of each query of each panel."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", RANGE)


async def test_every_query_of_every_panel_has_an_answer(pool: LocalPool, tmp_path: Path) -> None:
    gpu = ScriptedWorker(GPU, models=0, kind="cuda")
    gpu.figures = fleet_pb2.WorkerFigures(device=STAND)
    await gpu.start(pool.address)
    server = Prometheus(tmp_path, pool.http)
    try:
        with (
            asked(pool.address, *MODELS),
            asked(pool.address, MODELS[0]),
            asked(pool.address, SELDOM, every_s=3.0),
        ):
            panels = await asyncio.to_thread(panels_of, server)
    finally:
        server.end()
        await gpu.die()
    told = "".join(
        f"{name:9} {title:36} {value:12.6g}\n" for (name, title, _), value in panels.items()
    )
    sys.stdout.write(told)  # pytest -s shows what the panels show


def panels_of(server: Prometheus) -> dict[tuple[str, str, str], float]:
    """The first value of each query, once all have one."""
    wait_for(lambda: GPU in (server.ask("label/worker/values") or ()))
    workers = server.ask("label/worker/values")
    open_ = [
        (name, title, query) for name, one in DASHBOARDS.items() for title, query in queries(one)
    ]
    assert len(open_) > 70
    found: dict[tuple[str, str, str], float] = {}
    until = time.monotonic() + 60
    while (left := [one for one in open_ if one not in found]) and time.monotonic() < until:
        time.sleep(1)
        for asking in left:
            if values := answered(server, asking[2], workers):
                found[asking] = values[0]
    assert [f"{name}: {title}: {query}" for name, title, query in left] == []
    # Each bucket of a time shows one request.
    now = time.time()
    shown = server.ask(
        "query_exemplars", query="yolopool_request_seconds_bucket", start=str(now - 60),
        end=str(now),
    )  # fmt: skip
    assert shown[0]["exemplars"][0]["labels"]["request_id"]
    return found


def answered(server: Prometheus, query: str, workers: list[str]) -> list[float]:
    """Values for some worker, and for some model."""
    if "$worker" in query:
        found = (server.values(query.replace("$worker", worker)) for worker in workers)
        return next((values for values in found if values), [])
    return server.values(query.replace("$model", f"{MODELS[0]}@1"))


def wait_for(ask: Any) -> Any:
    until = time.monotonic() + 30
    while not (found := ask()):
        assert time.monotonic() < until
        time.sleep(0.2)
    return found


def test_what_is_scraped_is_well_formed_in_both_formats(pool: LocalPool) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None
    url = f"http://{pool.http}/metrics"
    with urlopen(url, timeout=10) as answer:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=answer.read(), capture_output=True, check=False
        )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
    asked_for = {"accept": "application/openmetrics-text; version=1.0.0"}
    with urlopen(Request(url, headers=asked_for), timeout=10) as answer:
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        names = {one.name for one in text_string_to_metric_families(answer.read().decode())}
    assert {"yolopool_requests", "yolopool_model_request_seconds"} <= names
