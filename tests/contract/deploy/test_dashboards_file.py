"""The dashboards of deploy/grafana are those that their generator writes, and no panel hides
another.
"""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

from tests.metric_families import ENDS, all_families
from tests.page_blocks import ROOT
from tests.unit.project.test_operations import METRIC

FOLDER = ROOT / "deploy" / "grafana"
FILES = sorted((FOLDER / "dashboards").glob("*.json"))


def test_the_files_are_the_generators(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(FOLDER / "generate.py"), str(tmp_path)], check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in FILES}, "make dashboards"


def test_panels_ask_for_metrics_that_there_are_and_stand_beside_each_other() -> None:
    known = {f"{one.name}{end}" for one in all_families() for end in ENDS[one.type]}
    assert {path.stem for path in FILES} == {"fleet", "model", "device", "capacity"}
    for path in FILES:
        panels = json.loads(path.read_text())["panels"]
        asked = {
            metric
            for panel in panels
            for target in panel["targets"]
            for metric in METRIC.findall(target["expr"])
        }
        assert asked <= known
        for one, other in combinations(panels, 2):
            assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])
        assert max(one["gridPos"]["x"] + one["gridPos"]["w"] for one in panels) <= 24


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
