"""What requests by this door did, for ModelStatistics: counts and times by model and version. Pure.

It is kept by the control plane that served them, since its start.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.v1 import detection_pb2, model_pb2

_NS_PER_MS, _NS_PER_S = 1e6, 1e9


@dataclass(slots=True)
class Tally:
    """Of one version. Times in nanoseconds, added up over requests."""

    success: int = 0
    fail: int = 0
    images: int = 0
    # Passes; of one that other images shared, the share.
    passes: float = 0.0
    last_unix_s: float = 0.0
    success_ns: float = 0.0
    fail_ns: float = 0.0
    queue_ns: float = 0.0
    input_ns: float = 0.0
    infer_ns: float = 0.0
    output_ns: float = 0.0


@dataclass(slots=True)
class InferStatistics:
    """By model and version of the registry."""

    _tallies: dict[tuple[str, int], Tally] = field(default_factory=dict)

    def answered(
        self, answers: Sequence[detection_pb2.DetectResponse], seconds: float, now_unix_s: float
    ) -> None:
        """One request of at least one image, `seconds` after it came."""
        key = answers[0].version
        tally = self._tally(key.model, key.version)
        tally.success += 1
        tally.images += len(answers)
        tally.passes += sum(1 / max(1, answer.batch_size) for answer in answers)
        tally.last_unix_s = now_unix_s
        tally.success_ns += seconds * _NS_PER_S
        # Images of a batch run beside each other: the slowest is the one that was waited for.
        timing = max((answer.timing for answer in answers), key=lambda timing: timing.total_ms)
        tally.queue_ns += (timing.queue_ms + timing.load_wait_ms) * _NS_PER_MS
        tally.input_ns += (timing.decode_ms + timing.preprocess_ms) * _NS_PER_MS
        tally.infer_ns += timing.inference_ms * _NS_PER_MS
        tally.output_ns += timing.postprocess_ms * _NS_PER_MS

    def failed(self, model: str, version: int, seconds: float) -> None:
        """One request that was not answered, `seconds` after it came."""
        tally = self._tally(model, version)
        tally.fail += 1
        tally.fail_ns += seconds * _NS_PER_S

    def of(self, versions: Iterable[model_pb2.ModelVersion]) -> kserve.ModelStatisticsResponse:
        """Of these versions, with zeros for those that were not asked."""
        response = kserve.ModelStatisticsResponse()
        for version in versions:
            key = version.version
            tally = self._tallies.get((key.model, key.version)) or Tally()
            response.model_stats.append(_out(key.model, str(key.version), tally))
        return response

    def keep(self, there: Collection[tuple[str, int]]) -> None:
        """Forgets all versions but these, by name and number: those that were deleted."""
        self._tallies = {key: tally for key, tally in self._tallies.items() if key in there}

    def _tally(self, model: str, version: int) -> Tally:
        return self._tallies.setdefault((model, version), Tally())


def _out(name: str, version: str, tally: Tally) -> kserve.ModelStatistics:
    def duration(count: int, ns: float) -> kserve.StatisticDuration:
        return kserve.StatisticDuration(count=count, ns=round(ns))

    return kserve.ModelStatistics(
        name=name,
        version=version,
        last_inference=round(tally.last_unix_s * 1000),
        inference_count=tally.images,
        execution_count=round(tally.passes),
        inference_stats=kserve.InferStatistics(
            success=duration(tally.success, tally.success_ns),
            fail=duration(tally.fail, tally.fail_ns),
            queue=duration(tally.success, tally.queue_ns),
            compute_input=duration(tally.success, tally.input_ns),
            compute_infer=duration(tally.success, tally.infer_ns),
            compute_output=duration(tally.success, tally.output_ns),
            cache_hit=duration(0, 0),
            cache_miss=duration(0, 0),
        ),
    )
