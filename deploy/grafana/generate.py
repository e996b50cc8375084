"""Writes the dashboards from the tables in here: python deploy/grafana/generate.py [FOLDER].

Every control plane tells of all workers, so what is of workers is a maximum over instances, and
what is of requests is a sum. Standard library only.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Query:
    """`legend` has labels in braces, as Grafana writes them."""

    expression: str
    legend: str = ""
    exemplar: bool = False


@dataclass(frozen=True)
class Panel:
    """`unit` in Grafana's words; `width` in columns of 24."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    help: str = ""
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False


@dataclass(frozen=True)
class Dashboard:
    """`variables`: label by name of the variable, with the metric whose values it has."""

    uid: str
    title: str
    help: str
    panels: tuple[Panel, ...]
    variables: Mapping[str, str]


def one(title: str, expression: str, legend: str = "", **more: Any) -> Panel:
    return Panel(title, (Query(expression, legend),), **more)


def stat(title: str, expression: str, **more: Any) -> Panel:
    return one(title, expression, kind="stat", **{"width": 4, **more})


def quantiles(title: str, buckets: str, **more: Any) -> Panel:
    """p50, p95 and p99 of a histogram in seconds, with a request of each bucket to click on."""
    asked = tuple(
        Query(
            f"histogram_quantile({share}, sum by (le) (rate({buckets}{RATE})))",
            f"p{int(100 * share)}",
            exemplar=True,
        )
        for share in (0.5, 0.95, 0.99)
    )
    return Panel(title, asked, unit="s", **more)


def ratio(part: str, whole: str) -> str:
    return f"{part} / {whole}"


def rate(of: str, by: str = "") -> str:
    return f"sum by ({by}) (rate({of}{RATE}))" if by else f"sum(rate({of}{RATE}))"


FLEET = Dashboard(
    "yolopool-fleet",
    "yolopool: fleet",
    "All control planes, workers and models at a glance.",
    (
        stat("Workers", 'max(yolopool_workers{state="READY"})', help="Ready ones"),
        stat("Models", "max(yolopool_models)"),
        stat("On devices", 'max(yolopool_replicas{state="HOT"})', help="Replicas on a device"),
        stat("Leads", "sum(yolopool_reconciler)", help="1; for a moment, while one takes over, 0"),
        stat("Lease left", "max(yolopool_lease_left_seconds)", unit="s"),
        stat("Store", "min(yolopool_registry_available)", help="1 while all reach it"),
        one("Requests by outcome", rate("yolopool_requests_total", "outcome"), "{{outcome}}",
            unit="reqps", stacked=True),
        quantiles("Time of answered requests", "yolopool_request_seconds_bucket"),
        one(
            "Mean time by stage",
            f"{rate('yolopool_stage_seconds_sum', 'stage')} / "
            f"{rate('yolopool_stage_seconds_count', 'stage')}",
            "{{stage}}", unit="s", stacked=True,
        ),
        one("Failed", ratio(rate('yolopool_requests_total{outcome!="OK"}'),
                            rate("yolopool_requests_total")), "all reasons", unit="percentunit",
            help="Of all requests"),
        one("Where models were", rate("yolopool_tier_requests_total", "tier"), "{{tier}}",
            unit="reqps", stacked=True, help="store: no worker had it, the request waited"),
        one("Found on a worker", ratio(rate('yolopool_model_requests_total{result="hit"}'),
                                       rate("yolopool_model_requests_total")),
            "hits", unit="percentunit"),
        one("Workers by state", "max by (state) (yolopool_workers)", "{{state}}", stacked=True),
        one("Replicas by state", "max by (state) (yolopool_replicas)", "{{state}}", stacked=True),
        one("Open requests", "sum(yolopool_requests_in_flight)", "open"),
        one("Loads", rate("yolopool_loads_total", "outcome"), "{{outcome}}", unit="ops"),
        one("Releases", rate("yolopool_releases_total", "cause"), "{{cause}}", unit="ops"),
        quantiles("Time of loads", "yolopool_load_seconds_bucket"),
        one("Busiest models", f"topk(10, {rate('yolopool_model_ended_total', 'model')})",
            "{{model}}", unit="reqps"),
        one("Sent again", rate("yolopool_retries_total", "reason"), "{{reason}}", unit="reqps",
            help="Requests that another worker took over, by why"),
        one("Events", rate("yolopool_events_total", "kind"), "{{kind}}", unit="ops"),
        one("Processes that crashed", rate("yolopool_worker_exits_total"), "workers", unit="ops"),
        one("Streams", "sum(yolopool_streams)", "open"),
        one("Frames dropped", rate("yolopool_stream_frames_dropped_total"), "newer ones came",
            unit="ops"),
    ),
    {},
)  # fmt: skip

OF_MODEL = '{model="$model"}'
MODEL = Dashboard(
    "yolopool-model",
    "yolopool: one model",
    "Requests, times and replicas of one version.",
    (
        stat("On devices", 'max(yolopool_model_replicas{model="$model",state="HOT"})'),
        stat("Weights", f"max(yolopool_model_weights_bytes{OF_MODEL})", unit="bytes"),
        stat("Open", f"max(yolopool_model_outstanding{OF_MODEL})"),
        stat("Devices' time", f"max(yolopool_model_busy_ratio{OF_MODEL})", unit="percentunit",
             help="100 %: one device all the time"),
        stat("Empty in a row", f"max(yolopool_model_empty_in_row{OF_MODEL})",
             help="Answers that found nothing since the last that did"),
        stat("Not finite", f"sum(yolopool_model_not_finite_total{OF_MODEL})",
             help="Answers that were NaN or infinite"),
        one("Requests by end", rate(f"yolopool_model_ended_total{OF_MODEL}", "end"), "{{end}}",
            unit="reqps", stacked=True),
        quantiles("Time of answered requests", f"yolopool_model_request_seconds_bucket{OF_MODEL}"),
        one(
            "Mean time by stage",
            f"{rate(f'yolopool_model_stage_seconds_total{OF_MODEL}', 'stage')} / ignoring(stage) "
            "group_left " + rate('yolopool_model_ended_total{model="$model",end="answered"}'),
            "{{stage}}", unit="s", stacked=True,
        ),
        one("Mean inference", f"{rate(f'yolopool_model_inference_seconds_sum{OF_MODEL}')} / "
            f"{rate(f'yolopool_model_inference_seconds_count{OF_MODEL}')}", "mean", unit="s"),
        one("Images a pass", rate('yolopool_model_ended_total{model="$model",end="answered"}')
            + f" / {rate(f'yolopool_model_passes_total{OF_MODEL}')}", "mean"),
        one("Objects an answer", f"{rate(f'yolopool_model_results_total{OF_MODEL}')} / "
            + rate('yolopool_model_ended_total{model="$model",end="answered"}'), "mean",
            help="A camera that was moved or covered shows here first"),
        one("Where it was", rate(f"yolopool_model_tier_requests_total{OF_MODEL}", "tier"),
            "{{tier}}", unit="reqps", stacked=True),
        one("Nobody had it", f"{rate(f'yolopool_model_misses_total{OF_MODEL}')} / "
            f"{rate(f'yolopool_model_ended_total{OF_MODEL}')}", "misses", unit="percentunit"),
        one("Replicas by state", f"max by (state) (yolopool_model_replicas{OF_MODEL})",
            "{{state}}", stacked=True),
    ),
    {"model": "yolopool_model_ended_total"},
)  # fmt: skip

OF_WORKER = '{worker="$worker"}'


def of_worker(metric: str, by: str = "") -> str:
    grouped = f" by ({by})" if by else ""
    return f"max{grouped} ({metric}{OF_WORKER})"


def worker_rate(metric: str, by: str = "") -> str:
    grouped = f" by ({by})" if by else ""
    return f"max{grouped} (rate({metric}{OF_WORKER}{RATE}))"


DEVICE = Dashboard(
    "yolopool-device",
    "yolopool: one device",
    "A worker, its device's memory ledger, and how the device stands.",
    (
        stat("Utilisation", of_worker("yolopool_device_utilisation_ratio"), unit="percentunit"),
        stat("Open requests", of_worker("yolopool_worker_outstanding")),
        stat("Wait now", of_worker("yolopool_worker_wait_seconds"), unit="s",
             help="Until a request that came now would begin, as the worker estimates"),
        stat("Lease left", of_worker("yolopool_worker_lease_left_seconds"), unit="s"),
        stat("Budget", 'max(yolopool_ledger_bytes{worker="$worker",term="budget"})', unit="bytes"),
        stat("Last Xid", of_worker("yolopool_device_last_xid"), help="0: none. Of GPUs"),
        one(
            "Memory ledger",
            'max by (term) (yolopool_ledger_bytes{worker="$worker",'
            'term=~"context|weights|workspace|graph_pool|backend_private|load_transient|foreign"})',
            "{{term}}", unit="bytes", stacked=True,
            help="What the worker promised and holds, under its budget",
        ),
        one("Memory of the device", of_worker("yolopool_device_memory_bytes", "state"),
            "{{state}}", unit="bytes", stacked=True),
        one("Drift", 'max(yolopool_ledger_bytes{worker="$worker",term="drift"})', "not in ledger",
            unit="bytes", help="Measured beyond what the ledger explains"),
        one("Busy", worker_rate("yolopool_worker_busy_seconds_total"), "passes",
            unit="percentunit", help="Share of the time in which a pass ran"),
        one("Passes", worker_rate("yolopool_worker_passes_total"), "passes", unit="ops"),
        one("Images a pass", f"{worker_rate('yolopool_worker_images_total')} / "
            f"{worker_rate('yolopool_worker_passes_total')}", "mean"),
        one("Passes against their estimate",
            f"{worker_rate('yolopool_worker_estimated_took_seconds_total')} / "
            f"{worker_rate('yolopool_worker_estimated_seconds_total')}", "took / estimated",
            help="1: as expected. Above: passes are slower than they were"),
        one("Estimates off by", f"{worker_rate('yolopool_worker_estimated_off_seconds_total')} / "
            f"{worker_rate('yolopool_worker_estimated_took_seconds_total')}", "mean",
            unit="percentunit"),
        one("Copies to the device", of_worker("yolopool_worker_swaps"), "of what it holds"),
        one("Evictions", worker_rate("yolopool_eviction_age_seconds_count", "tier"),
            "from {{tier}}", unit="ops"),
        one("Age at eviction", f"{worker_rate('yolopool_eviction_age_seconds_sum', 'tier')} / "
            f"{worker_rate('yolopool_eviction_age_seconds_count', 'tier')}", "from {{tier}}",
            unit="s", help="How long it had not been used: seconds here are thrash"),
        one("Load of the host", of_worker("yolopool_worker_host_load"), "threads a core"),
        one("Temperature", of_worker("yolopool_device_temperature_celsius"), "of the GPU",
            unit="celsius"),
        Panel("Power", (Query(of_worker("yolopool_device_power_watts"), "takes"),
                        Query(of_worker("yolopool_device_power_limit_watts"), "may take")),
              unit="watt"),
        one("Clock", of_worker("yolopool_device_clock_ratio"), "of the highest",
            unit="percentunit"),
        one("Clocks held down", of_worker("yolopool_device_throttled", "cause"), "{{cause}}"),
        one("Energy", worker_rate("yolopool_device_energy_joules_total"), "power", unit="watt"),
        one("Xid errors", of_worker("yolopool_device_xid_errors_total"), "since it started"),
    ),
    {"worker": "yolopool_worker_info"},
)  # fmt: skip

CAPACITY = Dashboard(
    "yolopool-capacity",
    "yolopool: capacity",
    "Whether the devices are enough, what fills them, and who uses them.",
    (
        Panel("Workers", (
            Query("sum by (device_kind) (max by (device_kind) (yolopool_desired_workers))",
                  "asked for: {{device_kind}}"),
            Query('max(yolopool_workers{state="READY"})', "ready"),
        ), help="What an autoscaler reads, and what is there"),
        one("Without room", "max by (reason) (yolopool_versions_waiting)", "{{reason}}",
            help="Versions that the newest plan could not place"),
        one("Time of devices", "avg(max by (worker) (yolopool_device_utilisation_ratio))",
            "mean", unit="percentunit"),
        Panel("Memory", (
            Query('sum(max by (worker) (yolopool_ledger_bytes{term="budget"}))', "budgets"),
            Query('sum(max by (worker) (yolopool_ledger_bytes{term=~"weights"}))', "weights"),
            Query('sum(max by (worker) (yolopool_ledger_bytes{term="workspace"}))', "workspace"),
        ), unit="bytes"),
        one("Largest on devices", "topk(10, max by (model) (yolopool_model_weights_bytes))",
            "{{model}}", unit="bytes"),
        one("Busiest on devices", "topk(10, max by (model) (yolopool_model_busy_ratio))",
            "{{model}}", unit="percentunit", help="100 %: one device all the time"),
        one("Age at eviction", "sum by (tier) (max by (worker, tier) "
            f"(rate(yolopool_eviction_age_seconds_sum{RATE}))) / sum by (tier) "
            f"(max by (worker, tier) (rate(yolopool_eviction_age_seconds_count{RATE})))",
            "from {{tier}}", unit="s",
            help="How long it had not been used: seconds here ask for more memory"),
        one("Age at release", f"{rate('yolopool_release_age_seconds_sum')} / "
            f"{rate('yolopool_release_age_seconds_count')}", "mean", unit="s"),
        one("Requests that waited for a load",
            rate('yolopool_tier_requests_total{tier!="device"}', "tier"), "{{tier}}",
            unit="reqps"),
        one("Plans", "histogram_quantile(0.99, sum by (le) "
            f"(rate(yolopool_plan_seconds_bucket{RATE})))", "p99", unit="s"),
        one("Commands of plans", rate("yolopool_commands_total", "command"), "{{command}}",
            unit="ops"),
        one("Commands under way", "max(yolopool_commands_in_flight)", "at workers"),
        one("Images by tenant", f"topk(10, {rate('yolopool_tenant_images_total', 'tenant')})",
            "{{tenant}}", unit="ops"),
        one("Device time by tenant",
            f"topk(10, {rate('yolopool_tenant_device_seconds_total', 'tenant')})", "{{tenant}}",
            unit="percentunit", help="100 %: one device all the time"),
        one("Refused by tenant", f"topk(10, {rate('yolopool_tenant_refused_total', 'tenant')})",
            "{{tenant}}", unit="ops"),
        one("Memory by tenant", f"topk(10, {rate('yolopool_tenant_byte_seconds_total', 'tenant')})",
            "{{tenant}}", unit="bytes", help="Weights of its models on devices"),
        one("Registered", "max(yolopool_versions)", "versions"),
        one("Workers without series", "max(yolopool_workers_without_series)", "beyond the bound"),
    ),
    {},
)  # fmt: skip
DASHBOARDS = (FLEET, MODEL, DEVICE, CAPACITY)


def json_of(dashboard: Dashboard) -> dict[str, Any]:
    """As Grafana reads it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.help,
        "tags": ["yolopool"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(_variables(dashboard.variables))},
        "links": [
            {
                "title": "yolopool",
                "type": "dashboards",
                "tags": ["yolopool"],
                "keepTime": True,
                "asDropdown": False,
            }
        ],
        "panels": list(_placed(dashboard.panels)),
    }


def _variables(variables: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    source = {"name": "datasource", "label": "Data source"}
    yield {**source, "type": "datasource", "query": "prometheus"}
    for label, metric in variables.items():
        query = f"label_values({metric}, {label})"
        yield {
            "name": label,
            "label": label.capitalize(),
            "type": "query",
            "datasource": SOURCE,
            "definition": query,
            "query": {"query": query, "refId": label},
            "refresh": 2,
            "sort": 1,
        }


def _placed(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """In rows from the left."""
    x = y = row = 0
    for number, panel in enumerate(panels, 1):
        height = 4 if panel.kind == "stat" else HEIGHT
        if x + panel.width > WIDTH:
            x, y, row = 0, y + row, 0
        place = {"x": x, "y": y, "w": panel.width, "h": height}
        yield {"id": number, "gridPos": place, **_drawn(panel)}
        x, row = x + panel.width, max(row, height)


def _drawn(panel: Panel) -> dict[str, Any]:
    custom = {
        "fillOpacity": 20 if panel.stacked else 0,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none"},
    }
    is_stat = panel.kind == "stat"
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, **({} if is_stat else {"custom": custom})},
            "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}}
        if is_stat
        else {"tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend or "__auto",
                **({"exemplar": True} if query.exemplar else {}),
            }
            for number, query in enumerate(panel.queries)
        ],
    }


def main(folder: Path) -> None:
    """One file a dashboard."""
    folder.mkdir(exist_ok=True)
    for dashboard in DASHBOARDS:
        name = dashboard.uid.removeprefix("yolopool-")
        text = json.dumps(json_of(dashboard), indent=1) + "\n"
        (folder / f"{name}.json").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
