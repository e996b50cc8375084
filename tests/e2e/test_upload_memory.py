"""A file by HTTP is never whole in the memory of a control plane, in one go or cut and resumed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import upload_memory
from tests.matrix import is_full

pytestmark = pytest.mark.e2e
FULL_MB, SAMPLE_MB = 2048, 160


@pytest.mark.parametrize("way", [upload_memory.in_one_go, upload_memory.cut_at_half])
def test_an_upload_takes_little_memory(
    tmp_path: Path, way: Callable[[Path, str, str], None]
) -> None:
    file = tmp_path / "large.pt"
    digest = upload_memory.make_file(file, FULL_MB if is_full() else SAMPLE_MB)
    row = upload_memory.measure(way, file, digest)
    assert float(str(row["peak_mb"])) * 1e6 < upload_memory.MOST_BYTES, row
