"""The newest requests are kept, and found by id."""

import pytest

from control_plane.routing.request_traces import RequestHistory, RequestTrace
from yolopool.errors import RequestNotFound


def test_only_the_newest_traces_are_kept() -> None:
    traces = RequestHistory(max_traces=3)
    for number, id_ in enumerate(["a", "b", "a", "", "c", "a"]):
        traces.add(trace(id_, float(number)))
    assert [one.unix_s for one in traces.find("a")] == [5.0, 2.0]
    assert [one.unix_s for one in traces.find("c")] == [4.0]
    for gone in ("b", ""):
        with pytest.raises(RequestNotFound, match="newest 3"):
            traces.find(gone)


def trace(id_: str, unix_s: float) -> RequestTrace:
    return RequestTrace(id_, unix_s, "me", "a", None, "OK", "", (), "w1", True, 1.0, 0.0)
