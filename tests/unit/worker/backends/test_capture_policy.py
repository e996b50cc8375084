"""Which passes are captured: squares soon, others if they are frequent, all within one budget."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from worker.backends.pytorch.capture_policy import (
    HALF_LIFE,
    MAX_OTHERS,
    OTHER_AFTER,
    SQUARE_AFTER,
    WORTH_A_CHANGE,
    CaptureDecision,
    CapturePolicy,
    GraphBytes,
    GraphKey,
)

SQUARE = GraphKey("a", "fp32", (640, 640), 1)
NEED = GraphBytes(slot_bytes=10, workspace_bytes=100, held_bytes=1)


def passes(
    graphing: CapturePolicy, kind: GraphKey, count: int, need: GraphBytes = NEED
) -> CaptureDecision:
    """Runs so many passes as the verdicts say; the last one."""
    verdict = CaptureDecision.EAGER
    for _ in range(count):
        verdict = graphing.decide(kind, need)
        if verdict is CaptureDecision.CAPTURE:
            graphing.note(kind, need)
        elif verdict is CaptureDecision.RENEW:
            graphing.dropped()
    return verdict


def wide(width: int) -> GraphKey:
    return replace(SQUARE, shape=(320, width))


def test_a_square_is_captured_soon_and_then_replayed() -> None:
    graphing = CapturePolicy(1000)
    assert passes(graphing, SQUARE, SQUARE_AFTER - 1) is CaptureDecision.EAGER
    assert passes(graphing, SQUARE, 1) is CaptureDecision.CAPTURE
    assert passes(graphing, SQUARE, 1) is CaptureDecision.REPLAY
    # Another batch is another graph.
    assert passes(graphing, replace(SQUARE, batch=2), 1) is CaptureDecision.EAGER


def test_of_other_shapes_only_the_few_most_seen() -> None:
    graphing = CapturePolicy(10_000)
    for number in range(MAX_OTHERS):
        assert passes(graphing, wide(352 + 32 * number), OTHER_AFTER) is CaptureDecision.CAPTURE
    assert passes(graphing, wide(992), 10 * OTHER_AFTER) is CaptureDecision.EAGER


def test_what_could_not_be_captured_is_tried_again_when_memory_may_be_there() -> None:
    graphing = CapturePolicy(1000)
    passes(graphing, SQUARE, SQUARE_AFTER - 1)
    graphing.refuse(SQUARE)
    assert passes(graphing, SQUARE, 10) is CaptureDecision.EAGER
    graphing.dropped()
    assert passes(graphing, SQUARE, 1) is CaptureDecision.CAPTURE
    other = replace(SQUARE, batch=2)
    passes(graphing, other, SQUARE_AFTER - 1)
    graphing.refuse(other)
    assert passes(graphing, other, 10) is CaptureDecision.EAGER
    passes(graphing, SQUARE, HALF_LIFE)
    passes(graphing, other, SQUARE_AFTER)
    assert passes(graphing, other, 1) is CaptureDecision.REPLAY


def test_graphs_share_weights_and_the_working_part_of_the_pool() -> None:
    # 10 of weights, 100 of the largest pass, 1 for each: a second batch is nearly free.
    graphing = CapturePolicy(112)
    passes(graphing, SQUARE, SQUARE_AFTER)
    assert passes(graphing, replace(SQUARE, batch=2), SQUARE_AFTER) is CaptureDecision.CAPTURE
    assert passes(graphing, replace(SQUARE, batch=3), SQUARE_AFTER) is CaptureDecision.EAGER


def test_what_is_seen_much_more_often_takes_the_place_of_all() -> None:
    graphing = CapturePolicy(111)
    passes(graphing, SQUARE, 10)
    other = replace(SQUARE, architecture="b")
    assert passes(graphing, other, 10 * WORTH_A_CHANGE - 1) is CaptureDecision.EAGER
    assert passes(graphing, other, 1) is CaptureDecision.RENEW
    assert passes(graphing, other, 1) is CaptureDecision.CAPTURE
    assert list(graphing.captured) == [other]


def test_what_fits_not_even_alone_or_was_refused_stays_eager() -> None:
    graphing = CapturePolicy(110)
    assert passes(graphing, SQUARE, 100) is CaptureDecision.EAGER
    graphing = CapturePolicy(1000)
    graphing.refuse(SQUARE)
    assert passes(graphing, SQUARE, 100) is CaptureDecision.EAGER


def test_what_was_seen_long_ago_counts_less() -> None:
    graphing = CapturePolicy(111)
    passes(graphing, SQUARE, HALF_LIFE // 2)
    other = replace(SQUARE, architecture="b")
    assert passes(graphing, other, 4 * HALF_LIFE) is CaptureDecision.REPLAY


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.booleans()), max_size=300))
def test_the_budget_holds_whatever_comes(seen: list[tuple[str, int, bool]]) -> None:
    graphing = CapturePolicy(250)
    for architecture, batch, is_square in seen:
        kind = GraphKey(architecture, "fp32", (64, 64 if is_square else 96), batch)
        passes(graphing, kind, 7, GraphBytes(20, 40 * batch, batch))
        slots = {one.slot for one in graphing.captured}
        workspace = max((one.workspace_bytes for one in graphing.captured.values()), default=0)
        held = sum(one.held_bytes for one in graphing.captured.values())
        assert 20 * len(slots) + workspace + held <= graphing.budget_bytes
