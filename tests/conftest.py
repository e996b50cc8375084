"""What every test needs before the model library is imported: no network, no installs, and a
folder of its own for the files it writes at import; and the models that tests share.
"""

import atexit
import os
import shutil
import tempfile

import hypothesis
import pytest

from tests.models import Zoo

os.environ["YOLO_OFFLINE"] = "1"
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"
if "YOLO_CONFIG_DIR" not in os.environ:
    os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="yolopool-tests-")
    atexit.register(shutil.rmtree, os.environ["YOLO_CONFIG_DIR"], ignore_errors=True)
# How long an example takes says something of the machine and nothing of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Checkpoints and packs, made when first asked for."""
    return Zoo(tmp_path_factory.mktemp("zoo"))
