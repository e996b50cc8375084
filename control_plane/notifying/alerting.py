"""Alerts of one control plane, put together: what it counts, the loop, and who is called."""

from collections.abc import Sequence
from uuid import uuid4

from control_plane.alerts.fellow_planes import UP
from control_plane.alerts.history import Readings
from control_plane.alerts.model_counts import METRICS, ModelCounts
from control_plane.alerts.rule import AlertRule
from control_plane.alerts.table import counters_begun, metrics_read
from control_plane.events.recorder import EventRecorder
from control_plane.metrics.exposition import Metrics
from control_plane.notifying.alert_controller import EVERY_S, AlertController, Leading
from control_plane.notifying.webhook_call import WebhookCaller
from control_plane.notifying.webhook_sender import WebhookSender
from control_plane.sources.source_rules import SourceRules
from control_plane.store.registry import Registry
from control_plane.view.view import View
from yolopool.server.clock import Clock


class Alerting:
    """`counts` is fed by the router; `controller` is to be run, and closed."""

    def __init__(
        self,
        name: str,
        registry: Registry,
        view: View,
        metrics: Metrics,
        leading: Leading,
        recorder: EventRecorder,
        may_call: SourceRules,
        clock: Clock,
        rules: Sequence[AlertRule],
        every_s: float = EVERY_S,
    ) -> None:
        self.counts = ModelCounts()
        self._view = view
        self._metrics = metrics
        self._clock = clock
        self._names = frozenset(name for name in metrics_read() - METRICS if name != UP[0])
        metrics.begin(counters_begun())
        self.controller = AlertController(
            name, registry.alert_records, view, self._look, leading, recorder, clock, rules, every_s
        )
        self.caller = WebhookCaller(may_call, clock.unix)
        self.sender = WebhookSender(self.caller.post, recorder, clock, self.controller.wake)
        self.controller.sender = self.sender

    def _look(self) -> Readings:
        view = self._view
        self.counts.look(view.desired.versions, view.holders, self._clock.monotonic())
        return {**self._metrics.readings(self._names), **self.counts.readings()}


def new_id() -> str:
    """Of a silence."""
    return uuid4().hex[:12]
