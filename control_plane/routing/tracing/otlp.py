"""Sends spans to an OpenTelemetry collector by OTLP over gRPC; the extra `otel` is needed."""

import os
import uuid
from collections.abc import Sequence
from typing import Any

from control_plane.caller import Origin, Trace
from control_plane.routing.tracing.spans import Span
from control_plane.telemetry.collector import MISSING, TIMEOUT_S, Collector, last_words
from yolopool.errors import InvalidOption

_NS = 1_000_000_000
_RECORDED = "01"


class Otlp:
    """`share`: of the requests whose caller named no trace, 0..1; a caller's trace says itself
    whether it is recorded.

    Spans are sent by a thread of their own; what a collector does not take is dropped.
    """

    def __init__(self, collector: Collector, share: float) -> None:
        """Raises InvalidOption if OpenTelemetry is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON

            from control_plane.routing.tracing.given_ids import GivenIds
        except ImportError as error:
            raise InvalidOption(MISSING) from error
        self._bound = int(share * 2**64)
        self._ids = GivenIds()
        # What is told is decided when a request begins.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=collector.resource(), id_generator=self._ids
        )
        self._exporter = OTLPSpanExporter(
            collector.endpoint, insecure=collector.is_insecure, timeout=TIMEOUT_S
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("yolopool", collector.release)

    def begun(self, origin: Origin) -> Trace | None:
        """The trace of a request that begins: with a span of its own if it is recorded, else as the
        caller has it; None: it is in none.
        """
        parent, own = origin.trace, origin.span_id
        if parent is not None:
            if not parent.is_recorded:
                return parent
            return Trace(parent.trace_id, parent.flags, own or os.urandom(8).hex())
        trace_id = uuid.uuid4().hex
        # By the id, so that others who see the trace can decide alike.
        if int(trace_id[16:], 16) >= self._bound:
            return None
        return Trace(trace_id, _RECORDED, own or os.urandom(8).hex())

    def note(self, own: Trace, parent: Trace | None, spans: Sequence[Span], is_error: bool) -> None:
        """Sends one recorded request that `begun` as `own`, the whole first, as a child of the
        caller's span.
        """
        from opentelemetry import trace

        whole, *stages = spans
        self._ids.give(own)
        root = self._tracer.start_span(
            whole.name,
            context=_context(parent),
            kind=trace.SpanKind.SERVER,
            attributes=whole.attributes,
            start_time=int(whole.began_s * _NS),
        )
        inside = trace.set_span_in_context(root)
        for stage in stages:
            self._tracer.start_span(
                stage.name, context=inside, start_time=int(stage.began_s * _NS)
            ).end(int(stage.ended_s * _NS))
        if is_error:
            root.set_status(trace.StatusCode.ERROR)
        root.end(int(whole.ended_s * _NS))

    def close(self) -> None:
        """Sends what is left, or gives up after LAST_WORDS_S."""
        with last_words(self._exporter.shutdown):
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
