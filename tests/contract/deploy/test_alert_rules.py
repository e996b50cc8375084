"""Prometheus and the pool go by one table: the same series make the same alerts in both."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane.alerts.evaluation import evaluate
from control_plane.alerts.expressions import Moment
from control_plane.alerts.history import History, Labels, Series
from control_plane.alerts.table import RULES
from control_plane.types.alerts.alert_state import AlertState, Stage
from tests.page_blocks import ROOT

FILE = ROOT / "deploy" / "prometheus" / "alerts.yml"
STEP_S, MINUTES = 30, 50
# When both are asked, minutes: while it is well, in trouble, and long after.
BEGINS, ENDS, ASKED = 10, 30, (9, 29, 49)
ALL = [replace(rule, built_in=True) for rule in RULES]

# A series: how it grows each step, or what it is, while all is well and in trouble.
Course = tuple[str, Mapping[str, str], float, float]


def grows(name: str, well: float, bad: float, **labels: str) -> Course:
    return (f"+{name}", labels, well, bad)


def stands(name: str, well: float, bad: float, **labels: str) -> Course:
    return (name, labels, well, bad)


X, W = {"model": "x@1"}, {"worker": "w1"}
COURSES = (
    grows("yolopool_model_ended_total", 30, 10, end="answered", **X),
    grows("yolopool_model_ended_total", 0, 3, end="failed", **X),
    grows("yolopool_model_ended_total", 0, 3, end="late", **X),
    grows("yolopool_model_misses_total", 0.1, 8, **X),
    grows("yolopool_model_inference_seconds_sum", 0.6, 2.0, **X),
    grows("yolopool_model_inference_seconds_count", 30, 10, **X),
    grows("yolopool_model_not_finite_total", 0, 1, **X),
    stands("yolopool_model_empty_in_row", 12, 2000, **X),
    stands("yolopool_ledger_bytes", 50, 95, term="measured", **W),
    stands("yolopool_ledger_bytes", 100, 100, term="budget", **W),
    stands("yolopool_ledger_bytes", 1, 20, term="drift", **W),
    stands("yolopool_worker_outstanding", 3, 12, **W),
    stands("up", 1, 0, job="yolopool"),
    stands("yolopool_workers", 2, 0, state="READY"),
    stands("yolopool_workers", 0, 1, state="LOST"),
    stands("yolopool_workers_crash_looping", 0, 1),
    stands("yolopool_registry_available", 1, 0),
    grows("yolopool_requests_total", 50, 50, outcome="OK"),
    grows("yolopool_requests_total", 0, 5, outcome="DEADLINE_EXCEEDED"),
    grows("yolopool_requests_total", 0, 5, outcome="QUEUE_FULL"),
    grows("yolopool_requests_total", 0, 5, outcome="INFERENCE_FAILED"),
    grows("yolopool_requests_total", 0, 1, outcome="IMAGE_QUARANTINED"),
    grows("yolopool_retries_total", 0, 6, reason="QUEUE_FULL"),
    grows("yolopool_model_requests_total", 30, 30, result="hit"),
    grows("yolopool_model_requests_total", 0.1, 99, result="miss"),
    grows("yolopool_loads_total", 1, 1, outcome="OK"),
    grows("yolopool_loads_total", 0, 1, outcome="LOAD_FAILED"),
    grows("yolopool_worker_exits_total", 0, 1),
    grows("yolopool_events_total", 0, 1, kind="TAKEOVER", reason=""),
    grows("yolopool_events_total", 0, 1, kind="PROBE_FAILED", reason=""),
    grows("yolopool_events_total", 0, 1, kind="ROLLOUT", reason="ROLLED_BACK"),
    grows("yolopool_log_lines_dropped_total", 0, 1),
    stands("yolopool_certificate_expires_timestamp_seconds", 10**7, 10**5),
)
# Of the other control plane, which is well.
OTHER = (
    stands("yolopool_workers", 2, 2, state="READY"),
    stands("yolopool_reconciler", 0, 0),
)
NOBODY_LEADS = stands("yolopool_reconciler", 1, 0)
TWO_LEAD = (stands("yolopool_reconciler", 1, 1), stands("yolopool_reconciler", 0, 1))


def values(course: Course) -> list[float]:
    name, _, well, bad = course
    found, at = [], 0.0
    for step in range(MINUTES * 60 // STEP_S):
        now = bad if BEGINS * 60 <= step * STEP_S < ENDS * 60 else well
        at = at + now if name.startswith("+") else now
        found.append(at)
    return found


def by_hand(planes: Mapping[str, tuple[Course, ...]]) -> dict[int, set[tuple[str, Labels]]]:
    """Which alerts the pool has firing, by the minute: rule and labels."""
    history, states = History(), dict[str, AlertState]()
    told = {plane: [(c, values(c)) for c in courses] for plane, courses in planes.items()}
    firing: dict[int, set[tuple[str, Labels]]] = {}
    for step in range(MINUTES * 60 // STEP_S):
        now = float(step * STEP_S)
        for plane, courses in told.items():
            readings: dict[Series, float] = {
                (name.lstrip("+"), tuple(sorted(labels.items()))): of[step]
                for (name, labels, _, _), of in courses
            }
            history.add(plane, now, readings)
        at = Moment(now, now)
        for rule in ALL:
            for key, state in evaluate(rule, history, states, {}, at).items():
                states.pop(key, None)
                if state is not None:
                    states[key] = state
        if now / 60 in ASKED:
            firing[int(now / 60)] = {
                (rule.name, labels)
                for rule in ALL
                for labels in rule.look.value(history, at)
                for state in (states.get(f"{rule.name}|{dict(labels).get(rule.about, '')}"),)
                if state is not None and state.stage is Stage.FIRING
            }
    return firing


def question(
    planes: Mapping[str, tuple[Course, ...]], firing: Mapping[int, set[tuple[str, Labels]]]
) -> dict[str, Any]:
    """What promtool is asked: the series, and that it finds the very same alerts."""
    return {
        "interval": f"{STEP_S}s",
        "input_series": [
            {
                "series": name.lstrip("+") + str({**labels, "instance": plane})
                .replace("': '", '="').replace("', '", '",').replace("{'", "{").replace("'}", '"}'),
                "values": " ".join(f"{one:g}" if one < 1e6 else str(int(one)) for one in values(c)),
            }
            for plane, courses in planes.items()
            for c in courses
            for name, labels, _, _ in (c,)
        ],
        "alert_rule_test": [
            {
                "eval_time": f"{minute}m",
                "alertname": rule.name,
                "exp_alerts": [
                    {
                        "exp_labels": {**dict(labels), "severity": rule.severity},
                        "exp_annotations": {"summary": rule.told(dict(labels).get(rule.about, ""))},
                    }
                    for name, labels in firing[minute]
                    if name == rule.name
                ],
            }
            for minute in ASKED
            for rule in RULES
        ],
    }  # fmt: skip


def promtool(*arguments: str) -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool: apt-get install prometheus")
    ran = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


POOLS = {
    "nobody leads": {"a": (*COURSES, NOBODY_LEADS), "b": OTHER},
    "two lead": {"a": (*COURSES, TWO_LEAD[0]), "b": (OTHER[0], TWO_LEAD[1])},
}
NOT_THEN = {"nobody leads": "YolopoolTwoLeaders", "two lead": "YolopoolNoLeader"}


@pytest.mark.parametrize("pool", POOLS)
def test_each_alert_fires_in_trouble_and_none_before_and_after(pool: str) -> None:
    firing = by_hand(POOLS[pool])
    assert firing[9] == firing[49] == set()
    expected = {rule.name for rule in RULES} - {NOT_THEN[pool]}
    assert {name for name, _ in firing[29]} == expected


def test_prometheus_takes_the_file() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(FILE))


def test_prometheus_finds_the_same(tmp_path: Path) -> None:
    asked = [question(pool, by_hand(pool)) for pool in POOLS.values()]
    shutil.copy(FILE, tmp_path / "alerts.yml")
    test = {"rule_files": ["alerts.yml"], "evaluation_interval": f"{STEP_S}s", "tests": asked}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "test.yml"))
