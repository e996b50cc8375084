"""Sends what /metrics shows to an OpenTelemetry collector, every so often."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.core import Metric

from control_plane.telemetry.collector import MISSING, TIMEOUT_S, Collector, last_words
from yolopool.errors import InvalidOption


class MetricsPush:
    """`run` it, then `close`. `families`: all metrics, as they are now. `now`: Unix seconds."""

    def __init__(
        self,
        collector: Collector,
        every_s: float,
        families: Callable[[], Iterable[Metric]],
        now: Callable[[], float],
    ) -> None:
        """Raises InvalidOption if OpenTelemetry is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        except ImportError as error:
            raise InvalidOption(MISSING) from error
        self._collector = collector
        self._resource = collector.resource()
        self._exporter = OTLPMetricExporter(
            collector.endpoint, insecure=collector.is_insecure, timeout=TIMEOUT_S
        )
        self._every_s = every_s
        self._families = families
        self._now = now
        self._began_s = now()
        self._is_sending = False

    async def run(self) -> None:
        """Never ends by itself. A collector that is away misses what it was to be told."""
        while True:
            await asyncio.sleep(self._every_s)
            await asyncio.to_thread(self._send, list(self._families()), self._now())

    async def close(self) -> None:
        """Tells the last state, or gives up after LAST_WORDS_S."""
        await asyncio.to_thread(self._end, list(self._families()), self._now())

    def _end(self, families: list[Metric], now_s: float) -> None:
        with last_words(self._exporter.shutdown):
            # One that is on its way is what a collector does not take.
            if not self._is_sending:
                self._send(families, now_s)
        self._exporter.shutdown()

    def _send(self, families: list[Metric], now_s: float) -> None:
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        from control_plane.telemetry.metric_points import points_of

        points: Any = points_of(families, self._began_s, now_s)
        scope = InstrumentationScope("yolopool", self._collector.release)
        data = MetricsData([ResourceMetrics(self._resource, [ScopeMetrics(scope, points, "")], "")])
        self._is_sending = True
        try:
            self._exporter.export(data)
        finally:
            self._is_sending = False
