"""The table of alerts as deploy/prometheus/alerts.yml. Pure."""

import json
from collections.abc import Iterable, Iterator

from control_plane.alerts.expressions import duration
from control_plane.alerts.rule import AlertRule

_HEAD = """\
# Written by `make alerts` from the table in control_plane/alerts, by which the pool raises the same
# alerts itself (docs/alerts.md). docs/operations.md has a section for each: what it means, what to
# look at, what to do. Change thresholds here where yours lives otherwise.
groups:
  - name: yolopool
    rules:
"""


def rules_file(rules: Iterable[AlertRule]) -> str:
    """The whole file."""
    return _HEAD + "".join(f"{line}\n" for rule in rules for line in _lines(rule))


def _lines(rule: AlertRule) -> Iterator[str]:
    yield f"      - alert: {rule.name}"
    first, *more = rule.promql().split("\n")
    if more:
        yield "        expr: |"
        yield f"          {first}"
        yield from (f"            {line}" for line in more)
    else:
        yield f"        expr: {first}"
    if rule.for_s:
        yield f"        for: {duration(rule.for_s)}"
    yield f"        labels: {{severity: {rule.severity}}}"
    yield "        annotations:"
    summary = rule.told(f"{{{{ $labels.{rule.about} }}}}")
    yield f"          summary: {json.dumps(summary)}"
