"""docs/metrics.md has a row for each metric, with its kind and its labels, and for no other."""

import re

from tests.metric_families import all_families, labels_of
from tests.page_blocks import ROOT

PAGE = (ROOT / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `([a-z_]+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)


def test_each_metric_has_its_row() -> None:
    rows = {name: (kind, labels) for name, kind, labels, _ in ROW.findall(PAGE)}
    assert len(rows) == len(ROW.findall(PAGE))
    told = {
        family.name: (family.type, ", ".join(f"`{one}`" for one in sorted(labels_of(family))))
        for family in all_families()
    }
    assert {name: (kind, labels.strip()) for name, (kind, labels) in rows.items()} == told
