"""The OpenTelemetry collector that this process tells of itself, by OTLP over gRPC."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

MISSING = (
    "--otlp-endpoint needs OpenTelemetry, which is not installed here: pip install 'yolopool[otel]'"
)


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
