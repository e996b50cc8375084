"""What a caller's process pays for the client, and whom it can live beside."""

import subprocess
import sys

HEAVY = (
    "torch", "redis", "cv2", "ultralytics", "starlette", "structlog", "control_plane",
    # Its symbols are tritonclient's too.
    "yolopool.kserve",
)  # fmt: skip


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_loads_no_server_library() -> None:
    loaded = run(
        "import sys, yolopool, yolopool.cli.main; yolopool.Client, yolopool.AsyncClient\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_errors_alone_load_no_grpc() -> None:
    assert run("import sys, yolopool.errors; print('grpc' in sys.modules)").strip() == "False"


def test_lives_beside_tritonclient() -> None:
    run(
        "import warnings\n"
        "with warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore')\n"  # tritonclient's own
        "    import tritonclient.grpc as triton\n"
        "import yolopool\n"
        "yolopool.Client('127.0.0.1:1').close()\n"
        "triton.InferenceServerClient('127.0.0.1:1').close()\n"
        "from yolopool.v1 import detection_pb2, worker_pb2\n"
        "import yolopool.cli.main, yolopool.local.pool\n"
    )


def test_every_public_name_is_there() -> None:
    run("import yolopool\nfor name in yolopool.__all__:\n    getattr(yolopool, name)\n")
    run("from yolopool import *\nassert Client and DetectOptions and QueueFull")


def test_the_client_loads_no_command_line() -> None:
    loaded = run(
        "import sys, yolopool; yolopool.Client, yolopool.AsyncClient\n"
        "print([name for name in ('typer', 'rich', 'click') if name in sys.modules])"
    )
    assert loaded.strip() == "[]"
