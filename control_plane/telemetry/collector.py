"""The OpenTelemetry collector that this process tells of itself, by OTLP over gRPC."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

MISSING = (
    "--otlp-endpoint needs OpenTelemetry, which is not installed here: pip install 'yolopool[otel]'"
)

# For one attempt to tell it, with its repeats.
TIMEOUT_S = 5.0
# At the end of the process, for what was not told.
LAST_WORDS_S = 0.8


@contextmanager
def last_words(shut_down: Callable[[], None]) -> Iterator[None]:
    """What waits inside ends soon after LAST_WORDS_S, since its exporter is then shut down."""
    timer = threading.Timer(LAST_WORDS_S, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass(frozen=True, slots=True)
class Collector:
    """`endpoint`: http://HOST:PORT, or https://. `instance` names this control plane."""

    endpoint: str
    instance: str
    release: str

    @property
    def is_insecure(self) -> bool:
        return not self.endpoint.startswith("https://")

    def resource(self) -> "Resource":
        """Who tells. Raises ImportError without OpenTelemetry."""
        from opentelemetry.sdk.resources import Resource

        return Resource.create(
            {
                "service.name": "yolopool-control-plane",
                "service.version": self.release,
                "service.instance.id": self.instance,
            }
        )
