"""What a log line of an error has."""

from collections.abc import Iterator

import pytest
import structlog

from yolopool.server import logs


@pytest.fixture
def structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.usefixtures("structlog_as_it_was")
@pytest.mark.parametrize("json", [True, False])
def test_a_traceback_has_no_values_of_callers(
    json: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.set_up_logs("test", json=json, queued=False)
    secret = "-".join(["what", "a", "caller", "sent"])

    def fail(given: str) -> None:
        raise ValueError(len(given))

    try:
        fail(secret)
    except ValueError as error:
        structlog.get_logger().error("unexpected error", exc_info=error)
    told = capfd.readouterr().err
    assert "ValueError: 18" in told
    assert secret not in told
    assert told.count("\n") < 30
