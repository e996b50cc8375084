"""Run by Python at its start where this folder is on PYTHONPATH: a pool that writes no request log,
counts no request, keeps no trace, tells no facts of passes and passes no trace on, on a device that
takes no time.
"""

import runpy
from pathlib import Path
from typing import Any

from control_plane.alerts.model_counts import ModelCounts
from control_plane.metrics.exposition import Metrics
from control_plane.routing.request_log import RequestLog
from control_plane.routing.request_traces import RequestHistory
from control_plane.routing.router import Router
from control_plane.statistics.request_rates import RequestRates
from worker.service import response
from yolopool.v1 import worker_pb2

runpy.run_path(str(Path(__file__).parents[1] / "no_device" / "sitecustomize.py"))


def nothing(*_: Any, **__: Any) -> None:
    """In place of what is measured."""


def no_facts(*_: Any) -> worker_pb2.PassFacts:
    return worker_pb2.PassFacts()


for owner, names in (
    (RequestLog, ("note",)),
    (Metrics, ("request_ended", "request_answered", "looked_up")),
    (ModelCounts, ("ended",)),
    (RequestHistory, ("add",)),
    (RequestRates, ("answered", "failed")),
    (Router, ("_begun",)),
):
    for name in names:
        setattr(owner, name, nothing)
response.pass_facts = no_facts  # type: ignore[assignment]  # what this file is for
