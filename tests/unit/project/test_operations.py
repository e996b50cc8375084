"""docs/operations.md has a section for each alert of deploy/prometheus and for no other, and says
what to do about every reason that is the pool's own; alerts ask for metrics that there are.
"""

import re
from typing import Any

import yaml

from control_plane.alerts.prometheus_file import rules_file
from control_plane.alerts.table import RULES
from tests.metric_families import ENDS, all_families
from tests.page_blocks import ROOT
from yolopool.error_table import BY_REASON

PAGE = (ROOT / "docs" / "operations.md").read_text()
SECTIONS = dict(re.findall(r"^#{2,3} ([^\n]+)\n(.*?)(?=^#{2,3} |\Z)", PAGE, re.M | re.DOTALL))
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
# Codes that say: the pool could not. Those of what a caller may change are in troubleshooting.md.
OWN_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "DATA_LOSS")
METRIC = re.compile(r"\byolopool_\w+")
OUTCOME = re.compile(r'outcome=~"([A-Z_|]+)"')


def rules() -> list[dict[str, Any]]:
    told = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    return [rule for group in told["groups"] for rule in group["rules"]]


def metrics() -> set[str]:
    """Names of all series that there may be, and of what they are of."""
    told: set[str] = set()
    for family in all_families():
        told |= {family.name, *(f"{family.name}{end}" for end in ENDS[family.type])}
    return told


def test_each_alert_has_a_section_and_each_section_an_alert() -> None:
    sections = [title for title in SECTIONS if title.startswith("Yolopool")]
    assert sorted(sections) == sorted(rule["alert"] for rule in rules())
    titles = re.findall(r"^### (Yolopool\w+)$", PAGE, re.MULTILINE)
    assert len(titles) == len(sections)


def test_each_section_of_an_alert_says_what_it_means_where_to_look_and_what_to_do() -> None:
    for rule in rules():
        text = SECTIONS[rule["alert"]]
        for word in ("**Means:**", "**Look at:**", "**Do:**"):
            assert text.count(word) == 1, (rule["alert"], word)


def test_alerts_ask_for_metrics_and_outcomes_that_there_are() -> None:
    known = metrics()
    for rule in rules():
        used = set(METRIC.findall(rule["expr"]))
        assert used <= known, rule["alert"]
        for outcomes in OUTCOME.findall(rule["expr"]):
            assert set(outcomes.split("|")) <= set(BY_REASON), rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_rules_of_prometheus_are_those_of_the_table() -> None:
    written = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    assert written == rules_file(RULES), "run make alerts"


def test_the_rules_are_loaded() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]


def test_each_reason_of_the_pool_has_a_row_and_each_row_a_reason() -> None:
    told = [row[0] for row in ROW.findall(PAGE)]
    own = {reason for reason, kind in BY_REASON.items() if kind.code in OWN_CODES}
    assert len(told) == len(set(told))
    assert own <= set(told) <= set(BY_REASON)
