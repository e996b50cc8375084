"""Ids of spans that were told to others before the span was made. Needs the extra `otel`."""

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from control_plane.caller import Trace


class GivenIds(RandomIdGenerator):
    """The next span has the ids that were given, once; all others have random ones."""

    def __init__(self) -> None:
        self._given: Trace | None = None

    def give(self, trace: Trace) -> None:
        self._given = trace

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self._given is None else int(self._given.trace_id, 16)

    def generate_span_id(self) -> int:
        given, self._given = self._given, None
        return super().generate_span_id() if given is None else int(given.span_id, 16)
