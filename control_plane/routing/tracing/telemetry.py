"""What an OpenTelemetry collector is told, if there is one: requests as traces, and metrics."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from control_plane.metrics.exposition import Metrics
from control_plane.routing.tracing.otlp import Otlp
from control_plane.settings import Settings
from control_plane.telemetry.collector import Collector
from control_plane.telemetry.complaints import Complaints
from control_plane.telemetry.metrics_push import MetricsPush
from yolopool import __version__
from yolopool.server.clock import Clock


class Telemetry:
    """`traces` is None without a collector. `run` it, and `close` it after the last request.
    `instance` names this control plane.
    """

    def __init__(
        self,
        settings: Settings,
        instance: str,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        """Raises InvalidOption if there is a collector and OpenTelemetry is not installed."""
        self.traces: Otlp | None = None
        self._push: MetricsPush | None = None
        if not settings.otlp_endpoint:
            return
        Complaints().install()
        collector = Collector(settings.otlp_endpoint, instance, __version__)
        self.traces = Otlp(collector, settings.otlp_share)

        if settings.otlp_metrics_s:
            every_s = settings.otlp_metrics_s
            self._push = MetricsPush(collector, every_s, metrics.families, clock.unix)

    async def run(self) -> None:
        """Tells metrics, if it is to."""
        if self._push is not None:
            await self._push.run()

    async def close(self) -> None:
        """Tells what is left, or gives up after a second."""
        closing: list[Coroutine[Any, Any, None]] = []
        if self.traces is not None:
            closing.append(asyncio.to_thread(self.traces.close))
        if self._push is not None:
            closing.append(self._push.close())
        await asyncio.gather(*closing)
