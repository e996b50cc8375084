"""Ways in turns: ratios are of one round, and the middle one counts."""

from benchmarks.harness.results import Row
from benchmarks.harness.turns import CPU, summary


def run(way: str, round_: int, cpu_ms: float, in_flight: int = 16) -> Row:
    return {
        "way": way, "round": round_, "in_flight": in_flight, CPU: cpu_ms,
        "requests_per_s": 100.0, "p50_ms": 2.0, "p99_ms": 3.0,
    }  # fmt: skip


def test_a_ratio_is_to_the_base_of_the_same_round() -> None:
    rows = [run(way, 0, 9.0, in_flight=1) for way in ("base", "other")]
    # A machine that slows down: the ratio stays.
    for round_, base_ms, ratio in ((0, 1.0, 1.1), (1, 2.0, 1.2), (2, 4.0, 1.5)):
        rows += [run("base", round_, base_ms), run("other", round_, base_ms * ratio)]
    base, other = summary(rows, "way", "base", "times")
    assert (base["times"], base["times_low"], base["times_high"]) == (1.0, 1.0, 1.0)
    names = ("times", "times_low", "times_high")
    assert [round(float(other[name] or 0), 3) for name in names] == [1.2, 1.1, 1.5]
    assert other["alone_p50_ms"] == 2.0
