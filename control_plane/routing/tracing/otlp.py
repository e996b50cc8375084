"""Sends spans to an OpenTelemetry collector by OTLP over gRPC. The only user of OpenTelemetry,
which the extra `otel` installs.
"""

from collections.abc import Sequence
from typing import Any

from control_plane.caller import Trace
from control_plane.routing.tracing.spans import Span
from yolopool.errors import InvalidOption

MISSING = (
    "--otlp-endpoint needs OpenTelemetry, which is not installed here: pip install 'yolopool[otel]'"
)
# At the end of the process, for spans that were not sent.
FLUSH_MS = 1000
_NS = 1_000_000_000


class Otlp:
    """`endpoint`: http://HOST:PORT, or https://. `share`: of the requests whose caller named no
    trace, 0..1; a caller's trace says itself whether it is recorded. `instance` names this control
    plane.

    Spans are sent by a thread of their own; what a collector does not take is dropped.
    """

    def __init__(self, endpoint: str, share: float, instance: str, release: str) -> None:
        """Raises InvalidOption if OpenTelemetry is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        except ImportError as error:
            raise InvalidOption(MISSING) from error
        resource = Resource.create(
            {
                "service.name": "yolopool-control-plane",
                "service.version": release,
                "service.instance.id": instance,
            }
        )
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)), resource=resource
        )
        exporter = OTLPSpanExporter(endpoint, insecure=not endpoint.startswith("https://"))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("yolopool", release)

    def note(self, parent: Trace | None, spans: Sequence[Span], is_error: bool) -> None:
        """Sends one request, the whole first, as a child of the caller's span."""
        from opentelemetry import trace

        whole, *stages = spans
        root = self._tracer.start_span(
            whole.name,
            context=_context(parent),
            kind=trace.SpanKind.SERVER,
            attributes=whole.attributes,
            start_time=int(whole.began_s * _NS),
        )
        if root.is_recording():
            inside = trace.set_span_in_context(root)
            for stage in stages:
                self._tracer.start_span(
                    stage.name, context=inside, start_time=int(stage.began_s * _NS)
                ).end(int(stage.ended_s * _NS))
            if is_error:
                root.set_status(trace.StatusCode.ERROR)
        root.end(int(whole.ended_s * _NS))

    def close(self) -> None:
        """Sends what is left, or gives up after a second."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()


def _context(parent: Trace | None) -> Any:
    from opentelemetry import trace
    from opentelemetry.context import Context

    if parent is None:
        return Context()  # not that of some other library in this process
    remote = trace.SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(parent.flags, 16)),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())
