"""What the metrics take from elsewhere when they are asked for."""

import pytest

from control_plane.metrics import Metrics
from yolopool.server import logs


def test_lines_of_the_log_that_were_dropped_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    for dropped in (0, 3, 3, 5):
        monkeypatch.setattr(logs, "dropped_lines", lambda dropped=dropped: dropped)
        text = metrics.text({}, {}, registry_available=True, is_leader=True).decode()
        assert f"yolopool_log_lines_dropped_total {float(dropped)}\n" in text
