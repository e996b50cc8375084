import pytest

from control_plane.caller import Trace, heard, trace_of_header

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        # Flags that the first version does not have are not passed on.
        (f"00-{TRACE}-{SPAN}-ff", "03"),
        # A later version may have more behind it.
        (f"cc-{TRACE}-{SPAN}-01-what-comes", "01"),
        (f"cc-{TRACE}-{SPAN}-01", "01"),
    ],
)
def test_a_trace_goes_on_with_a_span_of_ours(text: str, flags: str) -> None:
    trace = trace_of_header(text)
    assert trace == Trace(TRACE, flags, SPAN)
    assert trace.header("1" * 16) == f"00-{TRACE}-{'1' * 16}-{flags}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_not_valid_is_ignored(text: str) -> None:
    assert trace_of_header(text) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1, "role": "x"}', "[" * 30_000])
def test_what_another_control_plane_did_not_write_is_no_caller(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        heard(text)
