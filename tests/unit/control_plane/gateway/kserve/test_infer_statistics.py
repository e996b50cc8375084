"""Counts and times of requests, by version."""

from control_plane.gateway.kserve.infer_statistics import InferStatistics
from yolopool.v1 import detection_pb2, model_pb2, types_pb2


def answer(number: int = 1, batch_size: int = 1, **times: float) -> detection_pb2.DetectResponse:
    return detection_pb2.DetectResponse(
        version=types_pb2.VersionKey(model="shapes", version=number),
        batch_size=batch_size,
        timing=detection_pb2.Timing(**times),
    )


def version(number: int) -> model_pb2.ModelVersion:
    key = types_pb2.VersionKey(model="shapes", version=number)
    return model_pb2.ModelVersion(version=key)


def test_images_passes_and_the_times_of_the_slowest() -> None:
    account = InferStatistics()
    slow = {
        "total_ms": 50, "queue_ms": 10, "load_wait_ms": 5, "decode_ms": 3, "preprocess_ms": 2,
        "inference_ms": 20, "postprocess_ms": 4,
    }  # fmt: skip
    account.answered([answer(batch_size=2, total_ms=1), answer(batch_size=2, **slow)], 0.06, 12.5)
    account.answered([answer(batch_size=1, total_ms=7, inference_ms=1)], 0.01, 13.5)
    (found,) = account.of([version(1)]).model_stats
    assert (found.name, found.version, found.last_inference) == ("shapes", "1", 13_500)
    assert (found.inference_count, found.execution_count) == (3, 2)
    stats = found.inference_stats
    assert (stats.success.count, stats.success.ns) == (2, 70_000_000)
    assert (stats.queue.count, stats.queue.ns) == (2, 15_000_000)
    assert stats.compute_input.ns == 5_000_000
    assert stats.compute_infer.ns == 21_000_000
    assert stats.compute_output.ns == 4_000_000
    assert (stats.fail.count, stats.cache_hit.count) == (0, 0)


def test_failures_are_of_their_version() -> None:
    account = InferStatistics()
    account.answered([answer(2)], 0.01, 1)
    account.failed("shapes", 1, 0.25)
    account.failed("shapes", 2, 0.5)
    account.failed("shapes", 2, 0.25)
    first, second = account.of([version(1), version(2)]).model_stats
    assert (first.inference_stats.fail.count, first.inference_stats.fail.ns) == (1, 250_000_000)
    assert (second.inference_stats.fail.count, second.inference_stats.fail.ns) == (2, 750_000_000)
    assert (first.inference_stats.success.count, second.inference_stats.success.count) == (0, 1)


def test_a_version_that_was_not_asked_has_zeros_and_one_that_is_gone_is_forgotten() -> None:
    account = InferStatistics()
    account.answered([answer(1)], 0.01, 1)
    account.keep({("shapes", 1)})
    assert [one.inference_count for one in account.of([version(1), version(2)]).model_stats] == [
        1,
        0,
    ]
    account.keep(())
    assert account.of([version(1)]).model_stats[0].inference_count == 0
