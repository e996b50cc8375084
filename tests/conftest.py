"""What every test needs before the model library is imported: no network, no installs, and a
folder of its own for the files it writes at import; and the models that tests share.
"""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Generator

import pytest
import structlog

from tests.models import Zoo, zoo_folder

pytest_plugins = ["tests.matrix"]
# Errors that tests provoke by the dozen are logged with their tracebacks: drawn by rich, each takes
# a tenth of a second.
_plain = structlog.dev.ConsoleRenderer(
    colors=False, exception_formatter=structlog.dev.plain_traceback
)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _plain])
# A run starts hundreds of processes: each would compile the whole tree where bytecode is not kept,
# as in many container images.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["YOLO_OFFLINE"] = "1"
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"
if "YOLO_CONFIG_DIR" not in os.environ:
    os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="yolopool-tests-")
    atexit.register(shutil.rmtree, os.environ["YOLO_CONFIG_DIR"], ignore_errors=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays: Python need not look through it again and again for cycles."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def zoo(pytestconfig: pytest.Config) -> Zoo:
    """Checkpoints and packs, made when first asked for and kept in pytest's cache."""
    return Zoo(zoo_folder(pytestconfig.rootpath / ".pytest_cache" / "zoo"))
