"""What a scraper is told, and that it is bounded."""

import pytest

from control_plane.alerts.model_counts import MAX_VERSIONS, Answer, ModelCounts
from control_plane.metrics.exposition import MAX_SERIES, MAX_TENANTS, Metrics
from control_plane.metrics.fleet_look import MAX_WORKERS
from control_plane.types.command import Assign, Blocked
from control_plane.types.version import VersionKey
from control_plane.types.worker import DeviceStand, WorkerFigures
from tests.metric_families import Used
from tests.unit.control_plane.fleets import NOW, key, replica, worker
from tests.unit.control_plane.metrics.looks import fleet, series_of, shown
from yolopool.error_table import BY_REASON
from yolopool.server import logs
from yolopool.vocabulary import ReplicaState

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def answer(total_s: float = 0.02, results: int = 1, **more: object) -> Answer:
    given: dict[str, object] = {"tier": 0, "exemplar": ("trace_id", TRACE), "unix_s": NOW, **more}
    return Answer(total_s, (0.001,) * 7, 2, results, **given)  # type: ignore[arg-type]


def test_a_process_without_a_certificate_has_none_that_runs_out() -> None:
    name, metrics = "yolopool_certificate_expires_timestamp_seconds", Metrics()
    assert name not in shown(metrics)
    metrics.watch_certificate(lambda: 1.5e9)
    assert f"{name} 1.5e+09\n" in shown(metrics)


def test_lines_of_the_log_that_were_dropped_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    for dropped in (0, 3, 3, 5):
        monkeypatch.setattr(logs, "dropped_lines", lambda dropped=dropped: dropped)
        assert f"yolopool_log_lines_dropped_total {float(dropped)}\n" in shown(metrics)


def test_what_is_told_of_a_fleet_is_what_it_is() -> None:
    metrics, counts = Metrics(), ModelCounts()
    device = DeviceStand(
        used_bytes=30, free_bytes=70, utilisation=0.5, temperature_c=61.0, clock_ratio=0.6,
        throttled=("power",),
    )  # fmt: skip
    held = [replica("a", busy=0.9), replica("b", state=ReplicaState.WARM)]
    one = worker("w1", 100, held)
    object.__setattr__(one, "figures", WorkerFigures(device, busy_s=7.0))
    look = fleet(one, worker("w2", 100), waits={key("c"): Blocked(key("c"), "LEDGER_FULL", "no")})
    metrics.watch(lambda: look, counts)
    counts.ended(key("a"), "OK", True, answer())
    counts.ended(key("a"), "QUEUE_FULL", True)
    told = series_of(metrics)
    assert told['yolopool_workers{state="READY"}'] == 2
    assert told['yolopool_replicas{state="WARM"}'] == 1
    assert told['yolopool_desired_workers{device_kind="sim"}'] == 2
    assert told['yolopool_versions_waiting{reason="LEDGER_FULL"}'] == 1
    assert told['yolopool_model_ended_total{end="answered",model="a@1"}'] == 1
    assert told['yolopool_model_tier_requests_total{model="a@1",tier="device"}'] == 1
    assert told['yolopool_model_stage_seconds_total{model="a@1",stage="queue"}'] == 0.001
    assert told['yolopool_model_busy_ratio{model="a@1"}'] == 0.9
    assert told['yolopool_device_temperature_celsius{worker="w1"}'] == 61
    assert told['yolopool_device_throttled{cause="power",worker="w1"}'] == 1
    assert told['yolopool_worker_busy_seconds_total{worker="w1"}'] == 7
    # What a device does not say has no series, instead of a 0 that would be believed.
    assert not [name for name in told if "power_watts" in name or "energy" in name]


def test_series_of_a_version_end_with_it_and_those_of_a_tenant_with_it() -> None:
    metrics, counts = Metrics(), ModelCounts()
    looks = [fleet(worker("w1", 100, [replica("a"), replica("b")]))]
    metrics.watch(lambda: looks[-1], counts, triton=True)
    for name in "ab":
        counts.ended(key(name), "OK", True, answer())
    assert 'model="a@1"' in shown(metrics)
    looks.append(fleet(worker("w1", 100, [replica("b")])))
    after = shown(metrics)
    assert 'model="a@1"' not in after
    assert 'model="a"' not in after
    assert 'model="b@1"' in after
    metrics.tenants_used({"t": Used()}, ["t"])
    assert 'tenant="t"' in shown(metrics)
    metrics.tenants_used({}, [])
    assert 'tenant="t"' not in shown(metrics)


def test_an_answer_shows_its_trace_where_exemplars_can_be_read() -> None:
    metrics, counts = Metrics(), ModelCounts()
    metrics.watch(lambda: fleet(worker("w1", 100, [replica("a")])), counts)
    counts.ended(key("a"), "OK", True, answer(0.02))
    metrics.request_answered(answer(0.02))
    lines = shown(metrics, OPEN_METRICS).splitlines()
    for name in ("yolopool_request_seconds", "yolopool_model_request_seconds"):
        (line,) = [one for one in lines if one.startswith(name) and "trace_id" in one]
        assert 'le="0.025"' in line
        assert f'# {{trace_id="{TRACE}"}} 0.02' in line
    assert lines[-1] == "# EOF"
    assert "trace_id" not in shown(metrics)


def test_whatever_is_asked_series_are_at_most_so_many() -> None:
    """All that has a label at its bound and beyond it, with Triton's names on top."""
    metrics, counts = Metrics(), ModelCounts()
    device = DeviceStand(
        used_bytes=1, free_bytes=1, utilisation=0.1, temperature_c=1.0, clock_ratio=1.0,
        power_w=1.0, power_limit_w=1.0, energy_j=1.0, memory_total_bytes=2, xid_errors=1,
        last_xid=79, host_load=1.0,
    )  # fmt: skip
    keys = [VersionKey(f"m{n}", 1) for n in range(2 * MAX_VERSIONS)]
    workers = []
    for n in range(MAX_WORKERS + 20):
        one = worker(f"w{n:04}", 100, [replica(f"m{n % len(keys)}")], kind="cuda")
        object.__setattr__(one, "device", f"cuda:GPU-{n}")
        object.__setattr__(one, "figures", WorkerFigures(device))
        workers.append(one)
    look = fleet(*workers, versions=keys)
    metrics.watch(lambda: look, counts, triton=True)
    for version in keys:
        for state in ("OK", *BY_REASON):
            counts.ended(version, state, False, answer() if state == "OK" else None)
    for reason in (*BY_REASON, "OK", "OF_A_NEWER_RELEASE", "ANOTHER"):
        metrics.request_ended(reason)
        metrics.retried(reason)
        metrics.load_ended(reason, 1.0)
    metrics.planned(0.1, [Assign("w0001", keys[0], False, "it fits")])
    names = [f"t{n}" for n in range(2 * MAX_TENANTS)]
    metrics.tenants_used({name: Used() for name in names}, names)
    told = series_of(metrics)
    assert MAX_SERIES / 2 < len(told) <= MAX_SERIES
    assert told["yolopool_workers_without_series"] == 20
    assert told['yolopool_model_ended_total{end="answered",model="other"}'] == MAX_VERSIONS
    assert 'yolopool_requests_total{outcome="OTHER"}' in told
    assert told['yolopool_tenant_images_total{tenant="(other)"}'] == MAX_TENANTS
