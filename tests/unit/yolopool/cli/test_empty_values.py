"""An option that is given with nothing is an error, and not as if it were left out."""

import pytest
from typer.testing import CliRunner

from yolopool.cli.main import app


@pytest.mark.parametrize(
    "words",
    [
        ["models", "register", "best.pt", "--names", ""],
        ["models", "register", "best.pt", "--name="],
        ["models", "placement", "a", "--label", ""],
        ["models", "list", "--address", ""],
        ["detect", "a.jpg", "--model", ""],
        ["detect", "a.jpg", "--model", "a", "--save", ""],
        ["bench", "a", "--device", ""],
        ["events", "--worker", ""],
        ["keys", "create", "--role", "detect", "--label", ""],
        ["up", "--redis", ""],
        ["up", "--memory-budget", ""],
    ],
    ids=lambda words: " ".join(words),
)
def test_nothing_is_no_value(words: list[str]) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.output
    assert "is empty" in done.output
