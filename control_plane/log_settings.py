"""Settings of the logs of a control plane: part of `settings`."""

from functools import cached_property
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from yolopool.errors import YolopoolError
from yolopool.request_log.sampling import Sampling, parse

# Of the file of the request log, unless flags say otherwise.
MAX_BYTES, MAX_AGE_S, KEPT_FILES = 64 * 1024**2, 86400.0, 8


class LogSettings(BaseSettings):
    """Flags that begin with --log and --request-log."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_json: bool = Field(True, description="log one JSON object a line")
    log_file: str = Field("", description="log to this file, rotated by its size; empty: to stderr")
    request_log: str = Field(
        "",
        description="file for the request log, a JSON object a line; empty: requests are in the "
        "log of this process",
    )
    request_log_max_bytes: int = Field(
        MAX_BYTES, ge=4096, description="bytes at which the file is renamed and begun anew"
    )
    request_log_max_age_s: float = Field(
        MAX_AGE_S, gt=0, description="seconds after its first line at which it is renamed, too"
    )
    request_log_kept: int = Field(
        KEPT_FILES,
        ge=1,
        le=1000,
        description="earlier files that are kept beside it, as FILE.1 and so on",
    )
    request_log_sample: str = Field(
        "",
        description="which requests have a line: WHAT=SHARE, several with commas, of which the "
        "first that fits counts; WHAT is errors, slow:500ms or a pattern of models; empty: all",
    )

    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://[^\s/]+:\d+)?$",
        description="OpenTelemetry collector that is told of requests, as traces, and of metrics, "
        "by OTLP over gRPC: http://HOST:4317 or https://; empty: none. Needs the extra otel",
    )
    otlp_share: float = Field(
        1.0, ge=0, le=1, description="share of the requests without a caller's trace that are told"
    )
    otlp_metrics_s: float = Field(
        60.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds after which the collector is told the metrics again; 0: never",
    )

    @field_validator("request_log_sample")
    @classmethod
    def _rules_are_readable(cls, text: str) -> str:
        try:
            parse(text)
        except YolopoolError as error:
            raise ValueError(error.message) from error
        return text

    @cached_property
    def sampling(self) -> Sampling:
        """The rules of --request-log-sample."""
        return parse(self.request_log_sample)
