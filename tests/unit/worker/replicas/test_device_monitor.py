"""The device monitor: budgets shrink for others and come back, and a leak is what stays."""

from worker.backends.base import DeviceMemory
from worker.replicas.device_monitor import LOOKS, LeakDetector, budget_bytes, context_bytes


def test_a_budget_is_as_configured_while_others_leave_room() -> None:
    assert budget_bytes(1000, 1000, DeviceMemory(200, 5000, 4000)) == 1000


def test_a_budget_shrinks_to_what_is_used_and_free_and_comes_back() -> None:
    assert budget_bytes(1000, 1000, DeviceMemory(200, 5000, 300)) == 500
    assert budget_bytes(1000, 500, DeviceMemory(200, 5000, 900)) == 1000


def test_a_budget_does_not_follow_every_page() -> None:
    assert budget_bytes(1000, 500, DeviceMemory(200, 5000, 305)) == 500
    assert budget_bytes(1000, 995, DeviceMemory(200, 5000, 900)) == 1000


def test_drift_is_what_is_there_at_every_look() -> None:
    drift = LeakDetector()
    for _ in range(LOOKS - 1):
        assert drift.look(150, 100) is None  # not yet
    assert drift.look(150, 100) == 50
    assert drift.look(120, 100) == 20
    assert drift.look(900, 100) == 20  # a pass, or a large image
    assert drift.look(90, 100) == 0
    for _ in range(LOOKS):
        last = drift.look(130, 100)
    assert last == 30


def test_what_is_held_beyond_the_ledger_counts_as_context() -> None:
    assert context_bytes(opened=300, held_bytes=100, current=300, configured=1000) == 400
    assert context_bytes(opened=300, held_bytes=105, current=400, configured=1000) == 400, "a page"
    assert context_bytes(opened=300, held_bytes=0, current=400, configured=1000) == 300
