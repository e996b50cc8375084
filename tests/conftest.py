"""What every test needs before the model library is imported: no network, no installs, and a
folder of its own for the files it writes at import; and the models that tests share.
"""

import os
import tempfile

import pytest

from tests.models import Zoo

os.environ["YOLO_OFFLINE"] = "1"
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="yolopool-tests-"))


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Checkpoints and packs, made when first asked for."""
    return Zoo(tmp_path_factory.mktemp("zoo"))
