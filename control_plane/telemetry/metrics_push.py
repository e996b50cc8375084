"""Sends what /metrics shows to an OpenTelemetry collector, every so often."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.core import Metric

from control_plane.telemetry.collector import MISSING, Collector
from yolopool.errors import InvalidOption

# A collector that does not answer so long is asked again the next time.
TIMEOUT_S = 5.0
# At the end of the process.
LAST_TIMEOUT_S = 1.0


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
        self._exporter = OTLPMetricExporter(collector.endpoint, insecure=collector.is_insecure)
        self._every_s = every_s
        self._families = families
        self._now = now
        self._began_s = now()
        self._is_sending = False

    async def run(self) -> None:
        """Never ends by itself. A collector that is away misses what it was to be told."""
        while True:
            await asyncio.sleep(self._every_s)
            await self._push(TIMEOUT_S)

    async def close(self) -> None:
        """Tells the last state, or gives up after a second."""
        if not self._is_sending:
            await self._push(LAST_TIMEOUT_S)
        await asyncio.to_thread(self._exporter.shutdown)

    async def _push(self, timeout_s: float) -> None:
        families, now_s = list(self._families()), self._now()
        self._is_sending = True
        await asyncio.to_thread(self._send, families, now_s, timeout_s)

    def _send(self, families: list[Metric], now_s: float, timeout_s: float) -> None:
        try:
            self._export(families, now_s, timeout_s)
        finally:
            self._is_sending = False

    def _export(self, families: list[Metric], now_s: float, timeout_s: float) -> None:
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        from control_plane.telemetry.metric_points import points_of

        points: Any = points_of(families, self._began_s, now_s)
        scope = InstrumentationScope("yolopool", self._collector.release)
        data = MetricsData([ResourceMetrics(self._resource, [ScopeMetrics(scope, points, "")], "")])
        self._exporter.export(data, timeout_millis=timeout_s * 1000)
