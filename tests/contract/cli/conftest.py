"""What tests of the command line are held against, and what they send."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.scripted_pool import ScriptedPool


@pytest.fixture
def pool() -> Iterator[ScriptedPool]:
    with ScriptedPool() as running:
        yield running


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    Image.new("RGB", (160, 120)).save(path)
    return path
