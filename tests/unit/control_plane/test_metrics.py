"""What the metrics take from elsewhere when they are asked for."""

import pytest

from control_plane.metrics.exposition import Metrics
from yolopool.server import logs


def test_a_process_without_a_certificate_has_none_that_runs_out() -> None:
    name, metrics = "yolopool_certificate_expires_timestamp_seconds", Metrics()
    assert name not in metrics.text({}, {}, True, True).decode()
    metrics.watch_certificate(lambda: 1.5e9)
    assert f"{name} 1.5e+09\n" in metrics.text({}, {}, True, True).decode()


def test_lines_of_the_log_that_were_dropped_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    for dropped in (0, 3, 3, 5):
        monkeypatch.setattr(logs, "dropped_lines", lambda dropped=dropped: dropped)
        text = metrics.text({}, {}, registry_available=True, is_leader=True).decode()
        assert f"yolopool_log_lines_dropped_total {float(dropped)}\n" in text
